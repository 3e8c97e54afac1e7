//! The ValidatingAdmissionPolicy that keeps votes honest: everybody writes their own, and nobody but the operator decides.

use k8s_openapi::api::admissionregistration::v1::{
    MatchResources, NamedRuleWithOperations, ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
    ValidatingAdmissionPolicyBindingSpec, ValidatingAdmissionPolicySpec, Validation, Variable,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::ObjectMeta;

use super::{GROUP, crds};

/// Name of policy and binding, unless the chart says otherwise.
pub const NAME: &str = "file360-operator-approvals";
/// Whom the policy in `config/` takes for the operator.
pub const DEFAULT_OPERATOR: &str = "system:serviceaccount:file360-system:file360-operator";

/// The policy, for an operator of this user name.
pub fn policy(name: &str, operator: &str) -> ValidatingAdmissionPolicy {
    ValidatingAdmissionPolicy {
        metadata: named(name),
        spec: Some(ValidatingAdmissionPolicySpec {
            failure_policy: Some("Fail".into()),
            match_constraints: Some(MatchResources { resource_rules: Some(vec![rule()]), ..MatchResources::default() }),
            variables: Some(vec![
                variable("isOperator", &format!("request.userInfo.username == '{operator}'")),
                variable("before", "oldObject.?status.?votes.orValue([])"),
                variable("after", "object.?status.?votes.orValue([])"),
            ]),
            validations: Some(validations()),
            ..ValidatingAdmissionPolicySpec::default()
        }),
        status: None,
    }
}

/// The binding of the policy: it holds everywhere.
pub fn binding(name: &str) -> ValidatingAdmissionPolicyBinding {
    ValidatingAdmissionPolicyBinding {
        metadata: named(name),
        spec: Some(ValidatingAdmissionPolicyBindingSpec {
            policy_name: Some(name.to_owned()),
            validation_actions: Some(vec!["Deny".into()]),
            ..ValidatingAdmissionPolicyBindingSpec::default()
        }),
    }
}

/// Whether these are the shipped ones for an operator of this name: nothing narrower, nothing weaker.
pub fn is_as_shipped(
    policy: &ValidatingAdmissionPolicy,
    binding: &ValidatingAdmissionPolicyBinding,
    operator: &str,
) -> bool {
    let name = policy.metadata.name.as_deref().unwrap_or_default();
    let shipped = self::policy(name, operator);
    let (Some(found), Some(wanted), Some(bound)) = (&policy.spec, &shipped.spec, &binding.spec) else { return false };
    let holds_everywhere = found.match_constraints.as_ref().is_some_and(|constraints| {
        let rules = constraints.resource_rules.as_deref().unwrap_or_default();
        rules.iter().any(covers)
            && constraints.exclude_resource_rules.iter().flatten().next().is_none()
            && constraints.namespace_selector.as_ref().is_none_or(|selector| *selector == LabelSelector::default())
            && constraints.object_selector.as_ref().is_none_or(|selector| *selector == LabelSelector::default())
    });
    found.failure_policy.as_deref().unwrap_or("Fail") == "Fail"
        && found.match_conditions.iter().flatten().next().is_none()
        && found.param_kind.is_none()
        && found.variables == wanted.variables
        && expressions(found) == expressions(wanted)
        && holds_everywhere
        && bound.policy_name.as_deref() == Some(name)
        && bound.param_ref.is_none()
        && bound.match_resources.is_none()
        && bound.validation_actions.iter().flatten().any(|action| action == "Deny")
}

fn expressions(spec: &ValidatingAdmissionPolicySpec) -> Vec<&str> {
    spec.validations.iter().flatten().map(|validation| validation.expression.as_str()).collect()
}

fn rule() -> NamedRuleWithOperations {
    let texts = |list: &[&str]| Some(list.iter().map(|text| (*text).to_owned()).collect());
    NamedRuleWithOperations {
        api_groups: texts(&[GROUP]),
        api_versions: texts(&["*"]),
        operations: texts(&["CREATE", "UPDATE"]),
        resources: texts(&["approvals", "approvals/status"]),
        ..NamedRuleWithOperations::default()
    }
}

/// Whether a rule is the shipped one, whatever the API server filled in.
fn covers(found: &NamedRuleWithOperations) -> bool {
    let wanted = rule();
    found.api_groups == wanted.api_groups
        && found.api_versions == wanted.api_versions
        && found.operations == wanted.operations
        && found.resources == wanted.resources
        && found.resource_names.iter().flatten().next().is_none()
        && found.scope.as_deref().unwrap_or("*") == "*"
}

fn validations() -> Vec<Validation> {
    let others = |expression: &str, message: &str| Validation {
        expression: format!("variables.isOperator || {expression}"),
        message: Some(message.to_owned()),
        ..Validation::default()
    };
    let unchanged = status_fields()
        .into_iter()
        .filter(|field| field != "votes")
        .map(|field| format!("object.?status.?{field} == oldObject.?status.?{field}"))
        .collect::<Vec<_>>();
    vec![
        others("request.operation != 'CREATE'", "Approvals are made by the operator"),
        others(
            "request.operation == 'CREATE' || object.spec == oldObject.spec",
            "the spec of an Approval is the operator's",
        ),
        others(
            &format!("request.operation == 'CREATE' || ({})", unchanged.join(" && ")),
            "of an Approval's status, everybody but the operator writes their own vote only",
        ),
        others(
            // In their order, and none twice: the order decides.
            "request.operation == 'CREATE' || \
             variables.after.filter(vote, vote in variables.before) == variables.before",
            "a vote cannot be changed, moved or taken back",
        ),
        others(
            "request.operation == 'CREATE' || size(variables.after) == size(variables.before) || \
             (size(variables.after) == size(variables.before) + 1 && \
             variables.after[size(variables.before)].by == request.userInfo.username && \
             !has(variables.after[size(variables.before)].via) && !has(variables.after[size(variables.before)].id))",
            "a vote is one's own and comes last: `by` is the name under which the API server knows you",
        ),
        others(
            "request.operation == 'CREATE' || !has(oldObject.status) || !has(oldObject.status.decision) || \
             size(variables.after) == size(variables.before)",
            "it is decided: nobody votes any more",
        ),
    ]
}

/// Every field of an Approval's status, as the CRD has them.
fn status_fields() -> Vec<String> {
    let all = crds::all();
    let approval = all.iter().find(|crd| crd.spec.names.kind == "Approval");
    let schema = approval.and_then(|crd| crd.spec.versions.first()?.schema.as_ref()?.open_api_v3_schema.as_ref());
    let status = schema.and_then(|root| root.properties.as_ref()?.get("status"));
    status.and_then(|status| status.properties.as_ref()).map(|fields| fields.keys().cloned().collect()).unwrap_or_default()
}

fn variable(name: &str, expression: &str) -> Variable {
    Variable { name: name.to_owned(), expression: expression.to_owned() }
}

fn named(name: &str) -> ObjectMeta {
    let labels = [("app.kubernetes.io/name".to_owned(), "file360-operator".to_owned())];
    ObjectMeta { name: Some(name.to_owned()), labels: Some(labels.into()), ..ObjectMeta::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_of_the_status_but_the_votes_is_the_operators() {
        let fields = status_fields();
        assert!(fields.len() >= 10 && fields.iter().any(|field| field == "votes"), "{fields:?}");
        let all: String = validations().into_iter().map(|validation| validation.expression).collect();
        for field in fields.iter().filter(|field| *field != "votes") {
            assert!(all.contains(&format!("object.?status.?{field} == oldObject.?status.?{field}")), "{field}");
        }
    }

    #[test]
    fn t6_a_policy_that_is_weaker_than_the_shipped_one_proves_nothing() {
        let shipped = || (policy(NAME, "op"), binding(NAME));
        let (good, bound) = shipped();
        assert!(is_as_shipped(&good, &bound, "op"));
        assert!(!is_as_shipped(&good, &bound, "somebody else"));
        let (mut weak, bound) = shipped();
        weak.spec.as_mut().unwrap().failure_policy = Some("Ignore".into());
        assert!(!is_as_shipped(&weak, &bound, "op"));
        let (mut weak, bound) = shipped();
        weak.spec.as_mut().unwrap().validations.as_mut().unwrap().pop();
        assert!(!is_as_shipped(&weak, &bound, "op"));
        let (mut weak, bound) = shipped();
        let constraints = weak.spec.as_mut().unwrap().match_constraints.as_mut().unwrap();
        constraints.exclude_resource_rules = Some(vec![rule()]);
        assert!(!is_as_shipped(&weak, &bound, "op"));
        let (good, mut audit) = shipped();
        audit.spec.as_mut().unwrap().validation_actions = Some(vec!["Audit".into()]);
        assert!(!is_as_shipped(&good, &audit, "op"));
    }
}
