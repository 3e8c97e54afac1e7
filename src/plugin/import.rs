//! `import`: manifests for workspaces that exist already, such that applying them changes nothing but bookkeeping.

mod manifest;
mod names;

use clap::{Args, ValueEnum};
use futures::{StreamExt as _, TryStreamExt as _};
use serde_json::{Value, json};

use super::cluster::Cluster;
use super::object::{Kind, Seen};
use super::tenant::{Tenant, TenantArgs, refused};
use super::text::{Printer, line};
use super::{Access, Failure, Outcome, failed, yaml};
use crate::controllers::secure_workspace::observe::when;
use crate::controllers::secure_workspace::plan::Observed;
use crate::file360::File360;
use crate::file360::feature::{Enforcement, Feature};
use crate::file360::model::{BusinessKey, OwnerState, Workspace, WorkspaceState};
use crate::reconcile::ObjectKey;
use manifest::{Manifest, Writer};
use names::{Existing, Reference};

/// Workspaces that are read at once.
const AT_ONCE: usize = 4;
/// Attempts to read all parts of a workspace at one revision.
const ATTEMPTS: u32 = 4;
/// Pages that the listing may have.
const MOST_PAGES: usize = 1000;

/// Arguments of `import`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kubectl file360 import -n file360 --connection file360 -l region=EU > eu.yaml
  kubectl file360 import -n sales --connection file360/file360 --all --unmanaged --plan

The first apply takes the workspaces up: it writes the operator's marks and changes nothing else. Archived and trashed \
workspaces are passed over. Your rights must let you read the Connection and its Secret. Exit code 1: something could not be \
expressed so that the first apply changes nothing; the remarks in the output say what.")]
pub struct ImportArgs {
    /// The Connection: NAME, or NAMESPACE/NAME when it is in another namespace than the manifests.
    #[arg(long, value_name = "NAME")]
    connection: String,
    /// Workspaces with this metadata: KEY=VALUE, all of them.
    #[arg(short = 'l', long, value_name = "KEY=VALUE", value_delimiter = ',', value_parser = pair, required_unless_present = "all")]
    selector: Vec<(String, String)>,
    /// All workspaces of the tenant.
    #[arg(long, conflicts_with = "selector")]
    all: bool,
    /// Only workspaces that no resource manages.
    #[arg(long)]
    unmanaged: bool,
    /// Write `mode: Plan`: applying only shows what would be done.
    #[arg(long)]
    plan: bool,
    /// Write `access.mode: Exclusive`: from then on, whoever is not declared is removed. Default: Additive.
    #[arg(long)]
    exclusive: bool,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    tenant: TenantArgs,
}

/// How manifests are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A stream of YAML documents.
    #[default]
    Yaml,
    /// One JSON List.
    Json,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("{text} is not KEY=VALUE"))?;
    if key.is_empty() { Err(format!("{text} has no key")) } else { Ok((key.to_owned(), value.to_owned())) }
}

/// Prints the manifests; whether each of them changes nothing when it is applied.
pub async fn run(access: &Access, args: &ImportArgs, printer: &Printer) -> Outcome {
    let cluster = Cluster::connect(access).await?;
    let (namespace, name) = args.connection.split_once('/').unwrap_or((&cluster.namespace, &args.connection));
    let key = ObjectKey::new(namespace, name);
    let tenant = Tenant::open(&cluster, &key, &args.tenant).await?;
    let found = selected(&tenant, args).await?;
    let passed_over: Vec<String> = found.iter().filter(|found| !found.is_active()).map(Found::skipped).collect();
    let found: Vec<Found> = found.into_iter().filter(Found::is_active).collect();

    let existing = existing(&cluster, printer).await;
    let names = names::of(&found.iter().map(Found::workspace).collect::<Vec<_>>(), &existing);
    let enforcement = tenant.enforcement();
    let writer = Writer::new(&cluster.namespace, &key, &tenant.connection, enforcement, args)?;
    let manifests: Vec<Manifest> =
        found.iter().zip(names).map(|(found, name)| writer.manifest(&found.observed, found.workspace(), name)).collect();
    print(&manifests, args.output, printer);
    passed_over.iter().for_each(|remark| printer.note(remark));
    let remarkable = manifests.iter().filter(|manifest| !manifest.changes.is_empty()).count();
    printer.note(&format!(
        "{} manifests, {} workspaces passed over, {remarkable} manifests that would change something.",
        manifests.len(),
        passed_over.len()
    ));
    Ok(remarkable == 0)
}

/// A workspace with its parts.
struct Found {
    observed: Observed,
    workspace: Workspace,
}

impl Found {
    fn workspace(&self) -> &Workspace {
        &self.workspace
    }

    fn is_active(&self) -> bool {
        self.workspace.state == WorkspaceState::Active
    }

    fn skipped(&self) -> String {
        let Workspace { id, display_name, state, .. } = &self.workspace;
        format!(
            "Passed over: {} ({}) is {state:?}; applying a manifest would bring it back.",
            line(display_name, 100),
            line(id, 128)
        )
    }
}

/// The workspaces that the arguments ask for, by id.
async fn selected(tenant: &Tenant, args: &ImportArgs) -> Result<Vec<Found>, Failure> {
    let mut ids = Vec::new();
    let mut cursor: Option<String> = None;
    for _ in 0..MOST_PAGES {
        let page = tenant.driver.workspaces(None, cursor.as_deref()).await.map_err(|error| refused(&error))?;
        let is_managed = |state: Option<OwnerState>| state == Some(OwnerState::Active);
        let wanted = page
            .items
            .into_iter()
            .filter(|row| !(args.unmanaged && is_managed(row.owner.as_ref().map(|owner| owner.state))));
        ids.extend(wanted.map(|row| row.id));
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    if cursor.is_some() {
        return Err(failed("the tenant has more workspaces than can be listed"));
    }
    let driver = &*tenant.driver;
    let enforcement = &tenant.enforcement();
    let reading = futures::stream::iter(ids).map(|id| async move { read(driver, enforcement, &id, &args.selector).await });
    let read: Vec<Option<Found>> = reading.buffered(AT_ONCE).try_collect().await?;
    let mut found: Vec<Found> = read.into_iter().flatten().collect();
    found.sort_by(|a, b| a.workspace.id.cmp(&b.workspace.id));
    Ok(found)
}

/// A workspace with its parts; `None` when it is gone or not selected.
async fn read(
    driver: &dyn File360,
    enforcement: &Enforcement,
    id: &str,
    selector: &[(String, String)],
) -> Result<Option<Found>, Failure> {
    for _ in 0..ATTEMPTS {
        let Some(workspace) = driver.workspace(id).await.map_err(|error| refused(&error))? else { return Ok(None) };
        if !selector.iter().all(|(key, value)| workspace.metadata.get(key) == Some(value)) {
            return Ok(None);
        }
        let nothing = Observed { workspace: Some(workspace.clone()), ..Observed::nothing() };
        if workspace.state != WorkspaceState::Active {
            return Ok(Some(Found { observed: nothing, workspace }));
        }
        let revision = workspace.revision;
        let parts = tokio::try_join!(
            driver.folders(id),
            when(enforcement.has(Feature::Members), driver.members(id), revision),
            when(enforcement.has(Feature::UploadRequests), driver.upload_requests(id), revision),
        );
        let (folders, members, requests) = parts.map_err(|error| refused(&error))?;
        let revisions = [folders.revision, members.revision, requests.revision];
        if revisions.iter().all(|revision| *revision == workspace.revision) {
            let mut folders = folders.value;
            folders.sort_by(|a, b| a.path.cmp(&b.path));
            let observed = Observed { folders, members: members.value, requests: requests.value, ..nothing };
            return Ok(Some(Found { observed, workspace }));
        }
    }
    Err(failed(format!("workspace {} keeps changing while it is read; try again", line(id, 128))))
}

/// SecureWorkspaces of the namespace: a manifest must not overwrite one that is for another workspace.
async fn existing(cluster: &Cluster, printer: &Printer) -> Existing {
    let seen = match cluster.list(Kind::SecureWorkspace, Some(&cluster.namespace)).await {
        Ok(seen) => seen,
        Err(Failure::Failed(why) | Failure::Usage(why)) => {
            printer.note(&format!("Names of existing SecureWorkspaces are not avoided: {why}"));
            return Existing::default();
        }
    };
    let reference = |seen: &Seen| {
        let text = |pointer: &str| seen.spec.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        if let Some(id) = text("/workspaceId") {
            return Some(Reference::Id(id));
        }
        let key = format!("{}/{}", text("/externalRef/type")?, text("/externalRef/id")?);
        Some(Reference::Key(BusinessKey { system: text("/externalRef/system")?, key }))
    };
    Existing {
        names: seen.iter().map(|seen| seen.name.clone()).collect(),
        by_workspace: seen.iter().filter_map(|seen| Some((reference(seen)?, seen.name.clone()))).collect(),
    }
}

fn print(manifests: &[Manifest], format: Format, printer: &Printer) {
    match format {
        Format::Json => {
            let items: Vec<&Value> = manifests.iter().map(|manifest| &manifest.document).collect();
            let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
            printer.print(&yaml::json(&list));
            for manifest in manifests {
                manifest.remarks().for_each(|remark| printer.note(&format!("{}: {remark}", manifest.name())));
            }
        }
        Format::Yaml => {
            for manifest in manifests {
                let remarks: String = manifest.remarks().map(|remark| format!("# {remark}\n")).collect();
                printer.print(&format!("---\n# {}\n{remarks}{}", manifest.title, yaml::yaml(&manifest.document)));
            }
        }
    }
}
