//! Expressions: CEL in the Kubernetes dialect.
//!
//! An expression is compiled once, with every name it uses checked, and evaluated against [`Variables`]. What it may cost is
//! bounded when it is compiled: its length, how deep its parts nest, and how loops (`all`, `exists`, `map`, `filter`) stand in each other.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock};

use jiff::Timestamp;
use kube_cel::KubeCelExt as _;
use kube_cel::cel::common::ast::{CallExpr, EntryExpr, Expr, IdedExpr, LiteralValue, operators};
use kube_cel::cel::objects::{Key, Map};
use kube_cel::cel::{Context, ExecutionError, Program, Value};
use serde_json::Value as Json;

/// Longest text of an expression, in bytes.
pub const MAX_LENGTH: usize = 16 * 1024;
/// Loops inside loops.
const MAX_LOOPS: usize = 2;
/// Parts inside parts.
const MAX_DEPTH: usize = 64;
/// Longest text that an expression may give, in bytes.
const MAX_TEXT: usize = 256 * 1024;

/// All functions; made once, since there are about a hundred.
static FUNCTIONS: LazyLock<Context<'static>> = LazyLock::new(|| Context::default().with_all());

/// A compiled expression.
pub struct Expression {
    program: Program,
    /// What is evaluated: the program with members read as `a["b"]`.
    evaluated: IdedExpr,
}

impl std::fmt::Debug for Expression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Expression")
    }
}

/// Why an expression cannot be used: where, and what is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct Invalid {
    /// From 1.
    pub line: usize,
    /// From 1.
    pub column: usize,
    /// A sentence for people.
    pub message: String,
}

/// A field that cannot be used, with the reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {why}")]
pub struct InvalidField {
    /// Path of the field, below what was looked at.
    pub field: String,
    /// Why.
    pub why: String,
}

impl InvalidField {
    /// A value that cannot be used.
    pub fn value(field: impl Into<String>, why: impl Into<String>) -> Self {
        Self { field: field.into(), why: why.into() }
    }

    /// An expression that does not compile.
    pub fn expression(field: impl Into<String>, invalid: &Invalid) -> Self {
        Self { field: field.into(), why: invalid.to_string() }
    }

    /// The same below `parent`.
    #[must_use]
    pub fn below(mut self, parent: &str) -> Self {
        self.field = format!("{parent}.{}", self.field);
        self
    }
}

/// Why an expression gave no usable value for one set of variables.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failed {
    /// A sentence for people.
    pub message: String,
    /// The expression looked at a member that is not there. A condition that does not ask with `has()` first meets this for every file
    /// without the member.
    pub is_missing_key: bool,
}

impl Failed {
    fn because(message: impl Into<String>) -> Self {
        Self { message: message.into(), is_missing_key: false }
    }
}

impl Expression {
    /// Compiles `text`, which may use the names in `known` and nothing else.
    pub fn compile(text: &str, known: &[&str]) -> Result<Self, Invalid> {
        let whole = |message: String| Invalid { line: 1, column: 1, message };
        if text.len() > MAX_LENGTH {
            return Err(whole(format!("the expression has more than {MAX_LENGTH} bytes")));
        }
        let program = Program::compile(text).map_err(|errors| match errors.errors.first() {
            Some(first) => Invalid {
                line: usize::try_from(first.pos.0).unwrap_or(1).max(1),
                column: usize::try_from(first.pos.1).unwrap_or(1).max(1),
                message: crate::error::clean(&first.msg, 300),
            },
            None => whole("the expression cannot be read".into()),
        })?;
        let mut walk = Walk { known, bound: Vec::new(), loops: 0 };
        walk.visit(program.expression(), 0).map_err(|(name, message)| {
            let (line, column) = name.map_or((1, 1), |name| position(text, &name));
            Invalid { line, column, message }
        })?;
        let mut evaluated = program.expression().clone();
        index_members(&mut evaluated);
        Ok(Self { program, evaluated })
    }

    /// The value for `variables`.
    pub fn evaluate(&self, variables: &Variables) -> Result<Value, Failed> {
        Value::resolve(&self.evaluated, &variables.context).map_err(|error| {
            let memberless = match error {
                ExecutionError::NoSuchOverload => memberless(self.program.expression(), &variables.context),
                _ => None,
            };
            Failed {
                is_missing_key: memberless.is_some() || matches!(error, ExecutionError::NoSuchKey(_)),
                message: crate::error::clean(&memberless.unwrap_or_else(|| error.to_string()), 300),
            }
        })
    }

    /// A condition. Anything but a boolean is a failure.
    pub fn holds(&self, variables: &Variables) -> Result<bool, Failed> {
        match self.evaluate(variables)? {
            Value::Bool(holds) => Ok(holds),
            other => Err(Failed::because(format!("the result is of type {}, not bool", other.type_of()))),
        }
    }

    /// A text. Numbers and booleans become text; anything else is a failure.
    pub fn text(&self, variables: &Variables) -> Result<String, Failed> {
        text_of(&self.evaluate(variables)?)
    }

    /// A list of texts.
    pub fn texts(&self, variables: &Variables) -> Result<Vec<String>, Failed> {
        match self.evaluate(variables)? {
            Value::List(list) => list.iter().map(text_of).collect(),
            other => Err(Failed::because(format!("the result is of type {}, not list", other.type_of()))),
        }
    }

    /// A list, each of its items as JSON; one that cannot be is no reason to refuse the others.
    pub fn list(&self, variables: &Variables) -> Result<Vec<Result<Json, Failed>>, Failed> {
        match self.evaluate(variables)? {
            Value::List(list) => Ok(list.iter().map(|item| to_json(item, 0)).collect()),
            other => Err(Failed::because(format!("the result is of type {}, not list", other.type_of()))),
        }
    }

    /// Any value as JSON.
    pub fn json(&self, variables: &Variables) -> Result<Json, Failed> {
        to_json(&self.evaluate(variables)?, 0)
    }

    /// Whether the expression looks at `path`, such as `file.metadata.region` (or at anything below or above it).
    pub fn reads(&self, path: &[&str]) -> bool {
        reads(self.program.expression(), path)
    }
}

/// Whether some part of `expr` selects along `path`, or something shorter that contains it.
fn reads(expr: &IdedExpr, path: &[&str]) -> bool {
    if let Some(chain) = chain(expr) {
        let common = chain.len().min(path.len());
        return chain[..common] == path[..common];
    }
    parts(&expr.expr).into_iter().any(|part| reads(part, path))
}

/// Turns `a.b` into `a["b"]`, but inside `has()`. The interpreter makes `false` of a member of what has no members, such as a text or null;
/// an index is a failure there, and the same otherwise.
fn index_members(expr: &mut IdedExpr) {
    if let Expr::Select(select) = &mut expr.expr {
        index_members(&mut select.operand);
        if !select.test {
            let field =
                IdedExpr { id: 0, expr: Expr::Literal(LiteralValue::String(std::mem::take(&mut select.field).into())) };
            let args = vec![std::mem::take(&mut *select.operand), field];
            expr.expr = Expr::Call(CallExpr { func_name: operators::INDEX.to_owned(), target: None, args });
        }
        return;
    }
    parts_mut(&mut expr.expr).into_iter().for_each(index_members);
}

/// What in `expr` is asked for a member and has none, as a sentence.
fn memberless(expr: &IdedExpr, context: &Context<'_>) -> Option<String> {
    if let Expr::Select(select) = &expr.expr
        && let Some(names) = chain(&select.operand)
        && let Ok(value) = Value::resolve(&select.operand, context)
        && !matches!(value, Value::Map(_))
    {
        let (names, of, field) = (names.join("."), value.type_of(), &select.field);
        return Some(format!("No such key: {field}, for {names} is of type {of}"));
    }
    parts(&expr.expr).into_iter().find_map(|part| memberless(part, context))
}

/// The names of `a.b.c`.
fn chain(expr: &IdedExpr) -> Option<Vec<&str>> {
    match &expr.expr {
        Expr::Ident(name) => Some(vec![name]),
        Expr::Select(select) => {
            let mut names = chain(&select.operand)?;
            names.push(&select.field);
            Some(names)
        }
        _ => None,
    }
}

fn text_of(value: &Value) -> Result<String, Failed> {
    let text = match value {
        Value::String(text) => text.to_string(),
        Value::Int(number) => number.to_string(),
        Value::UInt(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Bool(value) => value.to_string(),
        Value::Timestamp(time) => time.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true),
        other => return Err(Failed::because(format!("the result is of type {}, not string", other.type_of()))),
    };
    if text.len() > MAX_TEXT { Err(Failed::because(format!("the result has more than {MAX_TEXT} bytes"))) } else { Ok(text) }
}

fn to_json(value: &Value, depth: usize) -> Result<Json, Failed> {
    if depth > MAX_DEPTH {
        return Err(Failed::because(format!("the result nests deeper than {MAX_DEPTH}")));
    }
    Ok(match value {
        Value::Null => Json::Null,
        Value::Bool(value) => (*value).into(),
        Value::Int(number) => (*number).into(),
        Value::UInt(number) => (*number).into(),
        Value::Float(number) => (*number).into(),
        Value::List(list) => list.iter().map(|item| to_json(item, depth + 1)).collect::<Result<Vec<_>, _>>()?.into(),
        Value::Map(map) => {
            let entry = |(key, value): (&Key, &Value)| Ok((key_text(key), to_json(value, depth + 1)?));
            Json::Object(map.map.iter().map(entry).collect::<Result<_, Failed>>()?)
        }
        other => text_of(other)?.into(),
    })
}

fn key_text(key: &Key) -> String {
    match key {
        Key::String(text) => text.to_string(),
        Key::Int(number) => number.to_string(),
        Key::Uint(number) => number.to_string(),
        Key::Bool(value) => value.to_string(),
    }
}

/// What expressions see.
pub struct Variables {
    context: Context<'static>,
}

impl Default for Variables {
    fn default() -> Self {
        Self { context: FUNCTIONS.new_inner_scope() }
    }
}

impl Variables {
    /// Sets one variable.
    pub fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.context.add_variable_from_value(name, value);
    }

    /// A copy that has this variable, too.
    #[must_use]
    pub fn extended(&self, name: &str, value: impl Into<Value>) -> Self {
        let (Context::Root { variables, .. } | Context::Child { variables, .. }) = &self.context;
        let mut copy = Self::default();
        if let Context::Child { variables: copied, .. } = &mut copy.context {
            copied.extend(variables.iter().map(|(name, value)| (name.clone(), value.clone_as_boxed())));
        }
        copy.with(name, value)
    }

    /// The same with this variable.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.set(name, value);
        self
    }
}

/// JSON as a value. Whole numbers are ints, as in Kubernetes.
pub fn from_json(json: &Json) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(number) => {
            number.as_i64().map_or_else(|| Value::Float(number.as_f64().unwrap_or(f64::NAN)), Value::Int)
        }
        Json::String(text) => string(text),
        Json::Array(items) => Value::List(Arc::new(items.iter().map(from_json).collect())),
        Json::Object(members) => map(members.iter().map(|(key, value)| (key.as_str(), from_json(value)))),
    }
}

/// A text as a value.
pub fn string(text: &str) -> Value {
    Value::String(Arc::new(text.to_owned()))
}

/// A map as a value.
pub fn map<'a>(entries: impl IntoIterator<Item = (&'a str, Value)>) -> Value {
    let map: HashMap<Key, Value> =
        entries.into_iter().map(|(key, value)| (Key::String(Arc::new(key.to_owned())), value)).collect();
    Value::Map(Map { map: Arc::new(map) })
}

/// A map of texts as a value.
pub fn text_map(entries: &BTreeMap<String, String>) -> Value {
    map(entries.iter().map(|(key, value)| (key.as_str(), string(value))))
}

/// A time as a value.
pub fn timestamp(time: Timestamp) -> Value {
    let time =
        chrono::DateTime::from_timestamp(time.as_second(), time.subsec_nanosecond().unsigned_abs()).unwrap_or_default();
    Value::Timestamp(time.fixed_offset())
}

/// Looks for names that do not exist and for what could cost too much.
struct Walk<'a> {
    known: &'a [&'a str],
    /// Names that a loop around this place brings in.
    bound: Vec<String>,
    loops: usize,
}

type Finding = (Option<String>, String);

impl Walk<'_> {
    fn visit(&mut self, expr: &IdedExpr, depth: usize) -> Result<(), Finding> {
        if depth > MAX_DEPTH {
            return Err((None, format!("the expression nests deeper than {MAX_DEPTH}")));
        }
        match &expr.expr {
            Expr::Ident(name) => self.name(name),
            Expr::Comprehension(inner) => {
                self.visit(&inner.iter_range, depth + 1)?;
                self.loops += 1;
                if self.loops > MAX_LOOPS {
                    return Err((None, format!("more than {MAX_LOOPS} loops stand in each other")));
                }
                let before = self.bound.len();
                self.bound.extend([inner.iter_var.clone(), inner.accu_var.clone()]);
                self.bound.extend(inner.iter_var2.clone());
                for part in [&inner.accu_init, &inner.loop_cond, &inner.loop_step, &inner.result] {
                    self.visit(part, depth + 1)?;
                }
                self.bound.truncate(before);
                self.loops -= 1;
                Ok(())
            }
            other => parts(other).into_iter().try_for_each(|part| self.visit(part, depth + 1)),
        }
    }

    fn name(&self, name: &str) -> Result<(), Finding> {
        if self.known.contains(&name) || self.bound.iter().any(|bound| bound == name) || is_namespace(name) {
            return Ok(());
        }
        let known = self.known.join(", ");
        Err((Some(name.to_owned()), format!("unknown variable {}; there are: {known}", crate::error::clean(name, 60))))
    }
}

/// Functions have these before their name: `math.greatest(1, 2)`.
fn is_namespace(name: &str) -> bool {
    ["math", "sets", "base64", "optional", "format", "jsonpatch"].contains(&name)
}

/// The parts of an expression, loops left out.
fn parts(expr: &Expr) -> Vec<&IdedExpr> {
    match expr {
        Expr::Call(call) => call.target.as_deref().into_iter().chain(&call.args).collect(),
        Expr::List(list) => list.elements.iter().collect(),
        Expr::Select(select) => vec![&select.operand],
        Expr::Map(map) => map.entries.iter().flat_map(|entry| entry_parts(&entry.expr)).collect(),
        Expr::Struct(made) => made.entries.iter().flat_map(|entry| entry_parts(&entry.expr)).collect(),
        Expr::Comprehension(inner) => {
            vec![&inner.iter_range, &inner.accu_init, &inner.loop_cond, &inner.loop_step, &inner.result]
        }
        Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => Vec::new(),
    }
}

/// The same, to change them.
fn parts_mut(expr: &mut Expr) -> Vec<&mut IdedExpr> {
    match expr {
        Expr::Call(call) => call.target.as_deref_mut().into_iter().chain(&mut call.args).collect(),
        Expr::List(list) => list.elements.iter_mut().collect(),
        Expr::Select(select) => vec![&mut *select.operand],
        Expr::Map(map) => map.entries.iter_mut().flat_map(|entry| entry_parts_mut(&mut entry.expr)).collect(),
        Expr::Struct(made) => made.entries.iter_mut().flat_map(|entry| entry_parts_mut(&mut entry.expr)).collect(),
        Expr::Comprehension(inner) => {
            vec![&mut inner.iter_range, &mut inner.accu_init, &mut inner.loop_cond, &mut inner.loop_step, &mut inner.result]
        }
        Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => Vec::new(),
    }
}

fn entry_parts_mut(entry: &mut EntryExpr) -> Vec<&mut IdedExpr> {
    match entry {
        EntryExpr::StructField(field) => vec![&mut field.value],
        EntryExpr::MapEntry(entry) => vec![&mut entry.key, &mut entry.value],
    }
}

fn entry_parts(entry: &EntryExpr) -> Vec<&IdedExpr> {
    match entry {
        EntryExpr::StructField(field) => vec![&field.value],
        EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
    }
}

/// Line and column of the first place where `name` stands as a word.
fn position(text: &str, name: &str) -> (usize, usize) {
    let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == '.';
    let found = text.match_indices(name).map(|(at, _)| at).find(|at| {
        let before = text[..*at].chars().next_back().is_some_and(is_word);
        let after = text[at + name.len()..].chars().next().is_some_and(|c| c.is_alphanumeric() || c == '_');
        !before && !after
    });
    let before = &text[..found.unwrap_or(0)];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line, column)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const KNOWN: &[&str] = &["file", "uploader"];

    fn file() -> Variables {
        let file = json!({"name": "a.pdf", "size": 7, "metadata": {"region": "EU", "n": "3"}, "tags": ["x", "y"]});
        Variables::default().with("file", from_json(&file))
    }

    fn compiled(text: &str) -> Expression {
        Expression::compile(text, KNOWN).unwrap()
    }

    #[test]
    fn conditions_texts_lists_and_json() {
        let file = file();
        assert!(
            compiled("file.metadata.region == 'EU' && has(file.metadata.n) && file.size < 50000000").holds(&file).unwrap()
        );
        assert!(!compiled("has(file.metadata.claimId)").holds(&file).unwrap());
        assert_eq!(compiled("'claims/' + file.metadata.n + '/' + file.name").text(&file).unwrap(), "claims/3/a.pdf");
        assert_eq!(compiled("file.size + 1").text(&file).unwrap(), "8");
        assert_eq!(compiled("file.tags.map(t, t + '!')").texts(&file).unwrap(), ["x!", "y!"]);
        assert_eq!(compiled("{'a': [1, file.name], 'b': null}").json(&file).unwrap(), json!({"a": [1, "a.pdf"], "b": null}));
        assert!(
            compiled("file.name.lowerAscii().endsWith('.pdf')").holds(&file).unwrap(),
            "Kubernetes' functions are there"
        );
    }

    #[test]
    fn a_wrong_expression_is_refused_with_its_place() {
        let syntax = Expression::compile("file.size >\n  > 3", KNOWN).unwrap_err();
        assert_eq!(syntax.line, 2, "{syntax}");
        let unknown = Expression::compile("file.size > 3 &&\n  flie.name == 'x'", KNOWN).unwrap_err();
        assert_eq!((unknown.line, unknown.column), (2, 3), "{unknown}");
        assert!(unknown.message.contains("flie") && unknown.message.contains("file, uploader"), "{unknown}");
        assert!(Expression::compile("file.tags.all(t, t != '')", KNOWN).is_ok(), "a loop's own name is known");
        assert!(Expression::compile(&format!("'{}'", "x".repeat(MAX_LENGTH)), KNOWN).is_err());
        let three = "file.tags.all(a, file.tags.all(b, file.tags.all(c, a == b)))";
        assert!(Expression::compile(three, KNOWN).unwrap_err().message.contains("loops"));
        assert!(Expression::compile(&"(".repeat(5000), KNOWN).is_err());
    }

    #[test]
    fn a_result_of_the_wrong_type_is_a_failure_and_no_guess() {
        let file = file();
        assert!(compiled("file.name").holds(&file).unwrap_err().message.contains("not bool"));
        assert!(compiled("file.tags").text(&file).unwrap_err().message.contains("not string"));
        assert!(compiled("file.metadata.missing == 'x'").holds(&file).unwrap_err().is_missing_key);
        assert!(compiled("uploader.email == 'x'").holds(&file).is_err(), "a variable that is not set");
    }

    #[test]
    fn a_member_of_what_has_no_members_is_missing_and_not_false() {
        let variables = file().with("uploader", Value::Null);
        for text in
            ["uploader.name", "file.name.first == 'x'", "[1].map(n, uploader.a)", "{'a': uploader.b}", "file.metadata.n.m"]
        {
            let failed = compiled(text).evaluate(&variables).unwrap_err();
            assert!(failed.is_missing_key, "{text}: {failed}");
        }
        assert!(
            compiled("file.name.first")
                .text(&variables)
                .unwrap_err()
                .message
                .contains("first, for file.name is of type string")
        );
        assert!(!compiled("has(uploader.name)").holds(&variables).unwrap());
        assert!(!compiled("has(file.metadata.n.m) && file.metadata.n.m == 'x'").holds(&variables).unwrap());
        assert!(
            !compiled("file.size + 'x' == 'y'").holds(&variables).unwrap_err().is_missing_key,
            "another failure is another"
        );
        let copy = variables.extended("uploader", from_json(&json!({"name": "a"})));
        assert_eq!(compiled("uploader.name + file.name").text(&copy).unwrap(), "aa.pdf");
        assert!(compiled("uploader.name").text(&variables).is_err(), "the copy is one");
    }

    #[test]
    fn what_an_expression_reads_is_known() {
        let expression = compiled("[file.metadata.region].exists(r, r == uploader.name)");
        assert!(expression.reads(&["file", "metadata", "region"]));
        assert!(expression.reads(&["file", "metadata"]));
        assert!(!expression.reads(&["file", "metadata", "n"]));
        assert!(compiled("file.metadata").reads(&["file", "metadata", "n"]), "the whole contains the part");
    }
}
