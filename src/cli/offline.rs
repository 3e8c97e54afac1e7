//! A FileRoute without a cluster: everything is compiled and its tests run, and nobody is called.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use url::{Host, Url};

use crate::api::FileRoute;
use crate::api::common::SecretKeyRef;
use crate::api::connection::CaRef;
use crate::api::places::ObjectStore;
use crate::api::report::ReportSpec;
use crate::error::{Error, Kind, Result};
use crate::file360::connector::{Connector, Credential, Observer, Settings, Transport};
use crate::file360::model::AccessList;
use crate::file360::{Cause, File360};
use crate::outbound::guard::Guard;
use crate::outbound::http::{self, Clients};
use crate::outbound::object_store::{self, Store};
use crate::outbound::secrets::References;
use crate::outbound::trust::Trust;
use crate::redacted::Redacted;
use crate::reports::event;
use crate::routes::build::{self, Network, Workshop};
use crate::routes::delivery::{Delivery, RouteId};
use crate::routes::destinations::file360;
use crate::routes::destinations::http::Addresses;
use crate::routes::destinations::index::Readers;

/// What the operator would refuse of a FileRoute: the first field that cannot be used, else every test that fails.
pub fn refused(manifest: &Value) -> Vec<String> {
    let object: FileRoute = match serde_json::from_value(manifest.clone()) {
        Ok(object) => object,
        Err(error) => return vec![error.to_string()],
    };
    let offline = match Offline::new(manifest) {
        Ok(offline) => offline,
        Err(why) => return vec![why],
    };
    let name = object.metadata.name.clone().unwrap_or_default();
    let id = RouteId { cluster: String::new(), namespace: String::new(), name, uid: String::new() };
    let made = build::route(Arc::new(id), &object.spec, &offline)
        .and_then(|route| build::objects(&object.spec, &route, &offline).map(|_| route));
    match made {
        Err(invalid) => vec![format!("spec.{invalid}")],
        Ok(route) => route.rules.failing(object.spec.tests.as_deref().unwrap_or_default(), Timestamp::now()),
    }
}

/// What HTTP targets need to be compiled; none is called.
pub fn surroundings(manifest: &Value) -> std::result::Result<http::Surroundings, String> {
    Offline::new(manifest).map(|offline| offline.http())
}

/// What the operator would refuse of the reports of a SecureWorkspace: the first field that cannot be used.
pub fn reports(manifest: &Value, specs: &[ReportSpec]) -> std::result::Result<(), String> {
    if specs.is_empty() {
        return Ok(());
    }
    let offline = Offline::new(manifest)?;
    event::check(specs, &Workshop::http(&offline)).map_err(|invalid| format!("spec.{invalid}"))
}

/// Makes destinations that are never called.
struct Offline {
    clients: Arc<Clients>,
    tenant: Arc<dyn File360>,
    guard: Arc<Guard>,
}

impl Offline {
    /// Which addresses the operator may call is not known here: what the manifest itself names counts as allowed.
    fn new(manifest: &Value) -> std::result::Result<Self, String> {
        // Without it no client can be built; a second one is refused, which does no harm.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut hosts = Vec::new();
        collect_hosts(&manifest["spec"], &mut hosts);
        let guard = Arc::new(Guard::new(&hosts, &[])?);
        let nobody = CancellationToken::new();
        nobody.cancel();
        let settings = Settings {
            endpoint: Url::parse("https://offline.invalid").map_err(|error| error.to_string())?,
            credential: Credential::Bearer(Redacted::new(String::new())),
            http: reqwest::Client::builder().build().map_err(|error| error.to_string())?,
            requests_per_second: None,
            concurrency: None,
            stop_writes: nobody,
            observer: Arc::new(Nobody),
        };
        let tenant = Arc::new(Connector::new(Arc::new(Transport::new(settings))));
        Ok(Self { clients: Clients::new(guard.clone(), Vec::new()), tenant, guard })
    }
}

/// The hosts of all URLs in `value`. Its depth is bounded: the schema has passed it.
fn collect_hosts(value: &Value, hosts: &mut Vec<String>) {
    match value {
        Value::String(text) => hosts.extend(Url::parse(text).ok().and_then(|url| host(&url))),
        Value::Array(items) => items.iter().for_each(|item| collect_hosts(item, hosts)),
        Value::Object(members) => members.values().for_each(|member| collect_hosts(member, hosts)),
        _ => {}
    }
}

fn host(url: &Url) -> Option<String> {
    Some(match url.host()? {
        Host::Domain(name) => name.to_owned(),
        Host::Ipv4(address) => address.to_string(),
        Host::Ipv6(address) => address.to_string(),
    })
}

impl Workshop for Offline {
    fn http(&self) -> http::Surroundings {
        http::Surroundings { references: Arc::new(Nobody), clients: self.clients.clone() }
    }

    fn addresses(&self) -> Arc<dyn Addresses> {
        Arc::new(Nobody)
    }

    fn network(&self) -> Network {
        Network { references: Arc::new(Nobody), guard: self.guard.clone(), trust: Trust::default() }
    }

    fn readers(&self) -> Arc<dyn Readers> {
        Arc::new(Nobody)
    }

    fn store(&self, spec: &ObjectStore) -> Result<Arc<dyn Store>> {
        // Which folders the operator has is not known here.
        let folders = spec.fs.iter().map(|folder| (folder.folder.clone(), PathBuf::from("/"))).collect();
        let settings = object_store::Settings { guard: self.guard.clone(), extra_ca: Vec::new(), folders };
        object_store::store(spec, "default", Arc::new(Nobody), &settings)
    }

    fn publication(&self) -> file360::Surroundings {
        file360::Surroundings {
            tenant: self.tenant.clone(),
            workspaces: Arc::new(Nobody),
            references: Arc::new(Nobody),
            ceiling: None,
            cause: Cause(String::new()),
            facet: String::new(),
        }
    }
}

/// Gives nothing: there is no cluster.
struct Nobody;

fn refusal<T>() -> Result<T> {
    Err(Error::new(Kind::Reference, "nothing is read without a cluster"))
}

#[async_trait]
impl References for Nobody {
    async fn credential(&self, _: &SecretKeyRef, _: &str) -> Result<Redacted> {
        refusal()
    }

    async fn keys(&self, _: &str) -> Result<Vec<(String, Redacted)>> {
        refusal()
    }

    async fn authorities(&self, _: &CaRef) -> Result<Vec<u8>> {
        refusal()
    }

    async fn client_certificate(&self, _: &str, _: &str) -> Result<Redacted> {
        refusal()
    }

    fn refused(&self) {}
}

#[async_trait]
impl Addresses for Nobody {
    async fn address(&self, _: &Delivery, _: Duration) -> Result<String> {
        refusal()
    }
}

#[async_trait]
impl Readers for Nobody {
    async fn readers(&self, _: &str) -> Result<AccessList> {
        refusal()
    }
}

#[async_trait]
impl file360::Workspaces for Nobody {
    async fn id_of(&self, _: &str) -> Result<Option<String>> {
        Ok(None)
    }

    fn is_read(&self, _: &str, _: &str) -> bool {
        false
    }
}

impl Observer for Nobody {
    fn call_ended(&self, _: &'static str, _: &'static str, _: Duration) {}
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::cli::check::Checker;

    fn findings(change: impl FnOnce(&mut serde_json::Value)) -> Vec<String> {
        let mut spec = json!({
            "connectionRef": {"name": "file360"},
            "from": {"workspaces": {"selector": {}}},
            "rules": [{
                "name": "photo",
                "when": "file.metadata.documentType == 'photo'",
                "set": {"routedTo": "'claims'"},
                "to": [
                    {"name": "case", "http": {"url": "http://127.0.0.1:1/cases", "path": ["file.id"]}, "writeBack": {"ref": "response.body.id"}},
                    {"name": "copy", "file360": {"workspaceRef": {"name": "w"}, "path": "'/In'"}},
                ],
            }],
            "unmatched": {"ignore": {}},
            "tests": [{"name": "a photo", "given": {"file": {"metadata": {"documentType": "photo"}}}, "expectRule": "photo"}],
        });
        change(&mut spec);
        let manifest =
            json!({"apiVersion": "file360.io/v1alpha1", "kind": "FileRoute", "metadata": {"name": "r"}, "spec": spec});
        Checker::new().unwrap().findings(&manifest)
    }

    #[test]
    fn a_route_that_the_operator_would_run_has_no_findings() {
        assert_eq!(findings(|_| {}), Vec::<String>::new());
    }

    #[test]
    fn every_expression_is_compiled_and_a_bad_one_is_named_with_line_and_column() {
        let found = |pointer: &str, text: &str| {
            findings(|spec| *spec.pointer_mut(pointer).unwrap() = json!(text)).into_iter().next().unwrap_or_default()
        };
        for (pointer, text, expected) in [
            ("/rules/0/when", "fil.size > 1", "spec.rules[0].when: line 1, column 1"),
            ("/rules/0/set/routedTo", "file.", "spec.rules[0].set.routedTo: line 1"),
            ("/rules/0/to/0/http/path/0", "response.id", "spec.rules[0].to[0].http.path[0]: line 1, column 1"),
            ("/rules/0/to/0/writeBack/ref", "resp.id", "spec.rules[0].to[0].writeBack.ref: line 1, column 1"),
            ("/rules/0/to/1/file360/path", "'/In' +\n foldr", "spec.rules[0].to[1].file360.path: line 2, column 2"),
        ] {
            let found = found(pointer, text);
            assert!(found.starts_with(expected), "{found}");
        }
    }

    #[test]
    fn the_tests_of_a_route_run_and_each_that_fails_is_a_finding() {
        let found = findings(|spec| {
            let tests = spec["tests"].as_array_mut().unwrap();
            tests.push(json!({"name": "a letter", "given": {}, "expectRule": "photo"}));
            tests.push(json!({"name": "another", "given": {"file": {"metadata": {"documentType": "photo"}}},
                "expectRule": "photo", "expectSet": {"routedTo": "others"}}));
        });
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(found[0], "test a letter: unmatched takes it, not photo");
        assert!(found[1].starts_with("test another: set.routedTo gives `claims`"), "{found:?}");
    }

    #[test]
    fn every_kind_of_destination_and_source_is_compiled() {
        let found = findings(|spec| {
            spec["from"] = json!({"objectStore": {"fs": {"folder": "in"}, "metadata": {"fromKey": "(?P<year>"}}});
        });
        assert!(found[0].starts_with("spec.from.objectStore.metadata.fromKey: "), "{found:?}");
        for (to, expected) in [
            (
                json!({"name": "x", "objectStore": {"fs": {"folder": "out"}}, "key": "fil.name"}),
                "spec.rules[0].to[0].key: line 1, column 1",
            ),
            (
                json!({"name": "x", "broker": {"nats": {"url": "nats://127.0.0.1:4222", "subject": "fil.name"}}}),
                "spec.rules[0].to[0].broker.nats.subject: line 1, column 1",
            ),
        ] {
            let found = findings(|spec| spec["rules"][0]["to"] = json!([to]));
            assert!(found[0].starts_with(expected), "{found:?}");
        }
    }

    #[test]
    fn the_reports_of_a_workspace_are_compiled() {
        let findings = |http: serde_json::Value| {
            let spec =
                json!({"connectionRef": {"name": "c"}, "displayName": "Acme", "report": [{"name": "crm", "http": http}]});
            let manifest = json!({"apiVersion": "file360.io/v1alpha1", "kind": "SecureWorkspace", "metadata": {"name": "w"}, "spec": spec});
            Checker::new().unwrap().findings(&manifest)
        };
        let url = "https://crm.example.com/events";
        let template = "{'deal': workspace.externalRef.id, 'what': event.type}";
        assert_eq!(findings(json!({"url": url, "template": template})), Vec::<String>::new());
        let found = findings(json!({"url": url, "template": "{'a': item.id}"}));
        assert!(found[0].starts_with("spec.report[0].http.template: line 1, column"), "{found:?}");
        let found = findings(json!({"url": url, "multipart": {"file": "f"}}));
        assert_eq!(found, ["spec.report[0].http.multipart: goes with the content of a file"]);
    }

    #[test]
    fn a_field_that_would_change_nothing_is_a_finding() {
        let found = findings(|spec| spec["rules"][0]["to"][1]["send"] = json!("Content"));
        assert_eq!(found, ["spec.rules[0].to[1].send: goes with http only"]);
    }
}
