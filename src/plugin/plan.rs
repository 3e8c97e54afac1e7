//! `plan`: what would be done now.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::Args;
use jiff::Timestamp;
use kube::ResourceExt;
use kube::api::Api;
use serde_json::{Value, json};

use super::cluster::{Cluster, Target, explain};
use super::object::{Kind, Seen};
use super::reasons::next_step;
use super::tenant::{Tenant, TenantArgs};
use super::text::{Printer, indented, line};
use super::{Access, Failure, Outcome, Output, failed, yaml};
use crate::api::SecureWorkspace;
use crate::api::secure_workspace::PlanStatus;
use crate::cli::check::{Checker, documents};
use crate::controllers::secure_workspace::pass::{Preview, connection_key};
use crate::controllers::secure_workspace::plan::{Plan, Step};
use crate::controllers::secure_workspace::status::Blocked;

/// Longest line of a step.
const LONGEST: usize = 1200;

/// Arguments of `plan`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kubectl file360 plan -n sales project-falcon
  kubectl file360 plan -f falcon.yaml
  kubectl file360 plan -f falcon.yaml -o json

With -f (and --live) the plan is made on this machine, by the code that the operator runs: it reads the Connection and \
its Secret with your rights, reads the workspace, and changes nothing. Exit code 1: there is no plan to be had.")]
pub struct PlanArgs {
    /// NAME of a SecureWorkspace: shows the plan in its status.
    #[arg(required_unless_present = "files", conflicts_with = "files")]
    name: Option<Target>,
    /// Manifest that may not be applied yet; `-` reads standard input. Other kinds in it are passed over.
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// With NAME: plan now, instead of showing the status.
    #[arg(long, conflicts_with = "files")]
    live: bool,
    /// How to print; JSON and YAML print what `status.plan` would be.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    tenant: TenantArgs,
}

/// Shows plans; whether there is one for everything that was named.
pub async fn run(access: &Access, args: &PlanArgs, printer: &Printer) -> Outcome {
    let cluster = Cluster::connect(access).await?;
    let Some(target) = &args.name else { return Box::pin(of_files(&cluster, args, printer)).await };
    let target = target.clone().workspace()?;
    if args.live {
        let api: Api<SecureWorkspace> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
        let found = api.get_opt(&target.name).await.map_err(|error| explain(&format!("read {target}"), &error))?;
        let object = found.ok_or_else(|| failed(format!("no {target} in namespace {}", cluster.namespace)))?;
        let shown = vec![planned(&cluster, object, true, args).await?];
        return show(&shown, args.output, printer);
    }
    of_status(&cluster.get(&target).await?, args.output, printer)
}

fn of_status(seen: &Seen, output: Output, printer: &Printer) -> Outcome {
    let plan = match seen.plan() {
        Some(plan) => plan,
        None if seen.is_ready() => Plan::default().status(),
        None => {
            let why = seen.focus().map_or_else(
                || "no pass has ended yet".to_owned(),
                |focus| format!("{}={} {}: {}", focus.kind, focus.status, focus.reason, focus.message),
            );
            let message = format!("{} has no plan in its status: {why}\nNext step: {}", seen.title(), next_step(seen));
            return Err(failed(message));
        }
    };
    if output != Output::Table {
        printer.print(&yaml::render(&plan, output)?);
        return Ok(true);
    }
    let outdated = if seen.is_current() { "" } else { " (of an older spec)" };
    printer.print(&format!("{}{outdated}\n{}", seen.title(), indented(&lines(&plan))));
    if seen.plan().is_some() {
        printer.print(&format!("Next step: {}", next_step(seen)));
    }
    Ok(true)
}

/// A plan, for people.
pub fn lines(plan: &PlanStatus) -> String {
    let steps = plan.actions.iter().map(|action| line(action, LONGEST));
    let more = plan.truncated.then(|| "... and more steps, which the status does not list".to_owned());
    summary(plan, steps.chain(more))
}

fn summary(plan: &PlanStatus, steps: impl Iterator<Item = String>) -> String {
    let steps: Vec<String> = steps.map(|step| format!("- {step}")).collect();
    if steps.is_empty() {
        return "nothing to do".into();
    }
    format!(
        "{} to create, {} to change, {} to remove; hash {}\n{}",
        plan.create,
        plan.update,
        plan.remove,
        line(&plan.hash, 64),
        steps.join("\n")
    )
}

/// A plan that was made here.
struct Planned {
    object: SecureWorkspace,
    is_applied: bool,
    preview: Preview,
}

async fn of_files(cluster: &Cluster, args: &PlanArgs, printer: &Printer) -> Outcome {
    let mut all = Vec::new();
    for file in &args.files {
        all.extend(manifests(file)?);
    }
    if all.is_empty() {
        return Err(failed("there is no SecureWorkspace in what was given"));
    }
    let mut shown = Vec::new();
    for mut object in all {
        let namespace = object.namespace().unwrap_or_else(|| cluster.namespace.clone());
        let api: Api<SecureWorkspace> = Api::namespaced(cluster.client.clone(), &namespace);
        let title = format!("{} {namespace}/{}", Kind::SecureWorkspace.name(), object.name_any());
        let live = api.get_opt(&object.name_any()).await.map_err(|error| explain(&format!("read {title}"), &error))?;
        let is_applied = live.is_some();
        object.metadata.namespace = Some(namespace);
        if let Some(live) = live {
            // What was applied last tells a change of the spec from a change in File 360; the uid tells whose mark it is.
            object.metadata = live.metadata;
            object.status = live.status;
        }
        shown.push(planned(cluster, object, is_applied, args).await?);
    }
    show(&shown, args.output, printer)
}

fn manifests(file: &Path) -> Result<Vec<SecureWorkspace>, Failure> {
    let name = file.display().to_string();
    let mut text = String::new();
    let read = if file == Path::new("-") {
        std::io::stdin().read_to_string(&mut text).map(|_| ())
    } else {
        std::fs::read_to_string(file).map(|content| text = content)
    };
    read.map_err(|error| failed(format!("{name}: {error}")))?;
    let documents = documents(&text).map_err(|error| failed(format!("{name}: {error}")))?;
    let checker = Checker::new().map_err(failed)?;
    let mut objects = Vec::new();
    let is_ours = |value: &Value| value["kind"] == Kind::SecureWorkspace.name();
    for document in documents.into_iter().filter(is_ours) {
        let findings = checker.findings(&document);
        let title = line(document["metadata"]["name"].as_str().unwrap_or_default(), 253);
        if !findings.is_empty() {
            return Err(failed(format!("{name}: SecureWorkspace {title}: {}", findings.join("; "))));
        }
        let object = serde_json::from_value(document);
        objects.push(object.map_err(|error| failed(format!("{name}: SecureWorkspace {title}: {error}")))?);
    }
    Ok(objects)
}

async fn planned(cluster: &Cluster, object: SecureWorkspace, is_applied: bool, args: &PlanArgs) -> Result<Planned, Failure> {
    let tenant = Tenant::open(cluster, &connection_key(&object), &args.tenant).await?;
    let preview = Box::pin(tenant.preview(cluster, object.clone())).await?;
    Ok(Planned { object, is_applied, preview })
}

fn show(shown: &[Planned], output: Output, printer: &Printer) -> Outcome {
    let data = match shown {
        _ if output == Output::Table => {
            let texts: Vec<String> = shown.iter().map(Planned::text).collect();
            printer.print(&texts.join("\n\n"));
            return Ok(true);
        }
        [one] => json!(one.preview.plan.status()),
        several => several.iter().map(Planned::data).collect(),
    };
    printer.print(&yaml::render(&data, output)?);
    Ok(true)
}

impl Planned {
    fn data(&self) -> Value {
        let plan = self.preview.plan.status();
        json!({"namespace": self.object.namespace(), "name": self.object.name_any(), "plan": plan})
    }

    fn text(&self) -> String {
        let plan = &self.preview.plan;
        let state = if self.is_applied { "" } else { " (not applied yet)" };
        let namespace = self.object.namespace().unwrap_or_default();
        let mut text = format!("{} {namespace}/{}{state}\n", Kind::SecureWorkspace.name(), self.object.name_any());
        let line_of = |step: &Step| line(&step.action.to_string(), LONGEST);
        text.push_str(&indented(&summary(&plan.status(), plan.steps.iter().map(line_of))));
        let mut remarks = Vec::new();
        remarks.extend(plan.tolerated.iter().map(|step| format!("left as it is by spec.drift: {}", line_of(step))));
        remarks.extend(
            plan.kept_folders.iter().map(|path| format!("kept, because it has content: folder {}", line(path, LONGEST))),
        );
        remarks.extend(self.preview.unsupported.iter().map(|one| format!("not honoured by the driver: {}", one.field)));
        remarks.extend(self.obstacle());
        for remark in remarks {
            text.push_str("\n  ");
            text.push_str(&remark);
        }
        text
    }

    /// Why the operator would not run the plan.
    fn obstacle(&self) -> Option<String> {
        let spec = &self.object.spec;
        let suspended = spec.suspend == Some(true) && spec.suspend_until.is_none_or(|until| until > Timestamp::now());
        let why = match &self.preview.blocked {
            None => return None,
            Some(_) if suspended => "it is suspended".to_owned(),
            Some(Blocked::Suspended) => "it is suspended".to_owned(),
            Some(Blocked::PlanOnly) => "mode: Plan".to_owned(),
            Some(Blocked::AwaitingApproval) => "mode: Approve, and spec.approvedPlan is not set".to_owned(),
            Some(Blocked::PlanChanged) => "spec.approvedPlan names another plan".to_owned(),
            Some(Blocked::TooManyRemovals { removals, max }) => {
                format!("it removes {removals}, more than spec.maxRemovals ({max})")
            }
        };
        Some(format!("The operator would not run it: {why}."))
    }
}
