//! Publishes into a workspace of the same tenant: the file, its metadata, and a share of it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use parking_lot::Mutex;
use serde_json::json;
use sha2::{Digest, Sha256};
use unicode_normalization::UnicodeNormalization;

use crate::api::common::SecretKeyRef;
use crate::api::connection::MaxSharing;
use crate::api::file_route::{File360Destination as Spec, PublishConflict, Share as ShareSpec};
use crate::error::{Error, Kind, Result, clean};
use crate::expression::{Expression, InvalidField};
use crate::file360::content::{IdempotencyKey, NewFile};
use crate::file360::model::{
    Audience, FacetPut, Item, ItemKind, ItemState, Link, MetadataPatch, NewLink, NewNotification, OnConflict, SharingRules,
    Workspace,
};
use crate::file360::sharing::{domain_matches, domain_of, lets_in, lets_out};
use crate::file360::{Cause, File360};
use crate::hex::hex;
use crate::outbound::secrets::References;
use crate::routes::delivery::{Delivery, Destination, MAX_LISTING, Receipt, RouteId};
use crate::routes::environment::{NAMES, depends_on_uploader};
use crate::routes::items::ensure_folder;
use crate::routes::ledger::pages;

/// Folders whose ids are remembered.
const REMEMBERED: usize = 1_000;
/// Most recipients of one share.
const MOST_RECIPIENTS: usize = 50;
/// Times that a publication looks again because somebody else wrote at the same time.
const MOST_ROUNDS: u32 = 3;

/// Which workspace a name of this namespace stands for.
#[async_trait]
pub trait Workspaces: Send + Sync {
    /// Id of the workspace of a SecureWorkspace of the route's namespace, once it has one.
    async fn id_of(&self, name: &str) -> Result<Option<String>>;

    /// Whether the route itself reads files at this path: what it writes there must not come back to it.
    fn is_read(&self, workspace: &str, path: &str) -> bool;
}

/// What a publication needs besides its spec.
pub struct Surroundings {
    /// The tenant.
    pub tenant: Arc<dyn File360>,
    /// The workspaces of the namespace.
    pub workspaces: Arc<dyn Workspaces>,
    /// Secrets of the namespace.
    pub references: Arc<dyn References>,
    /// What no share may exceed.
    pub ceiling: Option<MaxSharing>,
    /// Comes back in the feed with the route's own changes.
    pub cause: Cause,
    /// Name of the facet with the route's records.
    pub facet: String,
}

/// A File 360 destination of a route.
pub struct Publication {
    surroundings: Surroundings,
    workspace: Choice,
    path: Expression,
    file_name: Option<Expression>,
    on_conflict: PublishConflict,
    metadata: Vec<(String, Expression)>,
    share: Option<Sharing>,
    place: Option<String>,
    folders: Mutex<HashMap<(String, String), String>>,
}

enum Choice {
    Name(String),
    From(Expression),
}

struct Sharing {
    audience: Audience,
    recipients: Option<Expression>,
    expires_after: Option<Span>,
    password: Option<SecretKeyRef>,
    max_downloads: Option<u32>,
    notify: bool,
    locale: String,
}

/// What to write where.
struct Target {
    workspace: Workspace,
    folder: String,
    name: String,
    metadata: BTreeMap<String, String>,
    recipients: Vec<String>,
}

impl Publication {
    /// Compiles the `file360` destination of a rule.
    pub fn new(spec: &Spec, surroundings: Surroundings) -> Result<Self, InvalidField> {
        let compiled = |field: &str, text: &str| {
            Expression::compile(text, NAMES)
                .map_err(|invalid| InvalidField::expression(format!("file360.{field}"), &invalid))
        };
        let workspace = match (&spec.workspace_ref.name, &spec.workspace_ref.name_from) {
            (Some(name), None) => Choice::Name(name.clone()),
            (None, Some(text)) => Choice::From(compiled("workspaceRef.nameFrom", text)?),
            _ => return Err(InvalidField::value("file360.workspaceRef", "needs exactly one of name and nameFrom")),
        };
        let metadata = spec.metadata.iter().flatten();
        let metadata = metadata.map(|(name, text)| Ok((name.clone(), compiled(&format!("metadata.{name}"), text)?)));
        Ok(Self {
            workspace,
            path: compiled("path", &spec.path)?,
            file_name: spec.file_name.as_deref().map(|text| compiled("fileName", text)).transpose()?,
            on_conflict: spec.on_conflict.unwrap_or_default(),
            metadata: metadata.collect::<Result<_, InvalidField>>()?,
            share: spec.share.as_ref().map(Sharing::compile).transpose()?,
            place: spec.workspace_ref.name.as_ref().map(|name| format!("file360://{name}")),
            folders: Mutex::default(),
            surroundings,
        })
    }

    /// Everything that is decided before anything is written: R9 is checked here.
    async fn target(&self, delivery: &Delivery) -> Result<Target> {
        let variables = &delivery.variables;
        let failed = |field: &str, failed: crate::expression::Failed| {
            Error::new(Kind::Rejected, format!("file360.{field}: {}", failed.message))
        };
        let name = match &self.workspace {
            Choice::Name(name) => name.clone(),
            Choice::From(expression) if delivery.untrusted && depends_on_uploader(expression) => {
                let why = "file360.workspaceRef.nameFrom depends on what an outsider without a verified address entered; set requireEmail on \
                           the upload request, or name the workspace";
                return Err(Error::new(Kind::Rejected, why));
            }
            Choice::From(expression) => {
                expression.text(variables).map_err(|error| failed("workspaceRef.nameFrom", error))?
            }
        };
        let id = self.surroundings.workspaces.id_of(&name).await?.ok_or_else(|| {
            let why = format!("SecureWorkspace {} of this namespace has no workspace yet", clean(&name, 253));
            Error::new(Kind::Conflict, why)
        })?;
        let workspace = self.surroundings.tenant.workspace(&id).await?;
        let workspace = workspace.ok_or_else(|| Error::new(Kind::Conflict, "the workspace is gone"))?;
        let folder = folder_path(&self.path.text(variables).map_err(|error| failed("path", error))?)?;
        let file_name = match &self.file_name {
            Some(expression) => expression.text(variables).map_err(|error| failed("fileName", error))?,
            None => last_segment(&delivery.file.name).to_owned(),
        };
        let metadata = self.metadata.iter().map(|(name, expression)| {
            Ok((name.clone(), expression.text(variables).map_err(|error| failed(&format!("metadata.{name}"), error))?))
        });
        let metadata = metadata.collect::<Result<_>>()?;
        let recipients = match &self.share {
            Some(share) => share.permitted(delivery, &workspace.sharing, self.surroundings.ceiling.as_ref())?,
            None => Vec::new(),
        };
        Ok(Target { workspace, folder, name: segment(&file_name)?, metadata, recipients })
    }

    async fn folder(&self, workspace: &str, path: &str) -> Result<String> {
        let key = (workspace.to_owned(), path.to_owned());
        if let Some(id) = self.folders.lock().get(&key) {
            return Ok(id.clone());
        }
        let id = match path {
            "/" => {
                let root = self.surroundings.tenant.item_at(workspace, "/").await?;
                root.map(|root| root.id).ok_or_else(|| Error::new(Kind::Conflict, "the workspace is gone"))?
            }
            path => ensure_folder(&*self.surroundings.tenant, workspace, path, &self.surroundings.cause).await?,
        };
        let mut folders = self.folders.lock();
        if folders.len() >= REMEMBERED {
            folders.clear();
        }
        folders.insert(key, id.clone());
        Ok(id)
    }

    /// The file at its place; whether it was there already, and the bytes that were sent.
    async fn put(&self, delivery: &Delivery, target: &Target) -> Result<(Item, bool, u64)> {
        let mut last = Error::new(Kind::Conflict, "somebody else writes the same file");
        for _ in 0..MOST_ROUNDS {
            let found = self.try_put(delivery, target).await;
            match found {
                Err(error) if error.kind == Kind::Stale || error.code == "name-exists" && self.is_calm() => last = error,
                Err(error) if matches!(error.code.as_str(), "parent-missing") || error.kind == Kind::NotFound => {
                    self.folders.lock().clear();
                    last = error;
                }
                other => return other,
            }
        }
        if last.kind == Kind::NotFound {
            last.kind = Kind::Conflict;
        }
        Err(last)
    }

    /// A taken name is looked at again, unless that is what the spec calls a failure.
    fn is_calm(&self) -> bool {
        self.on_conflict != PublishConflict::Fail
    }

    async fn try_put(&self, delivery: &Delivery, target: &Target) -> Result<(Item, bool, u64)> {
        let tenant = &self.surroundings.tenant;
        let folder = self.folder(&target.workspace.id, &target.folder).await?;
        if self.on_conflict == PublishConflict::NewVersionIfChanged {
            let path = format!("{}/{}", target.folder.trim_end_matches('/'), target.name);
            if let Some(existing) = tenant.item_at(&target.workspace.id, &path).await? {
                if existing.kind == ItemKind::Folder {
                    return Err(Error::new(Kind::Rejected, format!("{} is a folder", clean(&path, 300))));
                }
                return self.replace(delivery, target, existing).await;
            }
        }
        let on_conflict = match self.on_conflict {
            PublishConflict::NewVersion => OnConflict::NewVersion,
            PublishConflict::Rename => OnConflict::Rename,
            PublishConflict::Fail | PublishConflict::NewVersionIfChanged => OnConflict::Fail,
        };
        let opened = delivery.content.open().await?;
        let new = NewFile {
            name: target.name.clone(),
            mime_type: delivery.file.mime_type.clone(),
            size: Some(opened.size),
            sha256: delivery.file.sha256.clone(),
            metadata: target.metadata.clone(),
            on_conflict,
        };
        let key = IdempotencyKey(delivery.key.clone());
        let item = tenant.upload(&folder, &new, opened.content, &key, &self.surroundings.cause).await;
        let item = item.map_err(|mut error| {
            if error.code == "name-exists" && !self.is_calm() {
                error.kind = Kind::Rejected;
            }
            error
        })?;
        Ok((item, false, opened.size))
    }

    /// A new version of the file that has the name, if its content differs.
    async fn replace(&self, delivery: &Delivery, target: &Target, existing: Item) -> Result<(Item, bool, u64)> {
        let tenant = &self.surroundings.tenant;
        let cause = &self.surroundings.cause;
        let same = self.is_same(delivery, &existing).await?;
        let (mut item, sent) = if same {
            (existing, 0)
        } else {
            let opened = delivery.content.open().await?;
            let file = &delivery.file;
            let (size, sha256) = (Some(opened.size), file.sha256.as_deref());
            let put = tenant.put_content(&existing.id, &existing.etag, &file.mime_type, size, sha256, opened.content, cause);
            (put.await?, opened.size)
        };
        if target.metadata.iter().any(|(name, value)| item.metadata.get(name) != Some(value)) {
            let metadata = target.metadata.iter().map(|(name, value)| (name.clone(), Some(value.clone()))).collect();
            let patch = MetadataPatch { item_id: item.id.clone(), etag: None, metadata };
            let key = IdempotencyKey(format!("{}-metadata", delivery.key));
            let results = tenant.set_metadata(&[patch], &key, cause).await?;
            if let Some(problem) = results.results.into_iter().find_map(|result| result.problem) {
                let why = clean(&problem.detail.unwrap_or(problem.title), 200);
                return Err(Error::new(Kind::Rejected, format!("its metadata was refused: {why}")));
            }
            item.metadata.extend(target.metadata.clone());
        }
        Ok((item, same, sent))
    }

    /// Whether the file that is there has this content. A source that tells no digest is read for it, when the sizes agree.
    async fn is_same(&self, delivery: &Delivery, existing: &Item) -> Result<bool> {
        let Some(there) = existing.sha256.as_deref() else { return Ok(false) };
        if let Some(here) = delivery.file.sha256.as_deref() {
            return Ok(here.eq_ignore_ascii_case(there));
        }
        if existing.size != Some(delivery.file.size) {
            return Ok(false);
        }
        let mut hash = Sha256::new();
        let mut content = delivery.content.open().await?.content;
        while let Some(chunk) = content.next().await {
            hash.update(&chunk?);
        }
        Ok(hex(&hash.finalize()).eq_ignore_ascii_case(there))
    }

    /// What the route writes into its own paths is recorded as done, so that no scan takes it up (R8).
    async fn mark_own(&self, delivery: &Delivery, item: &Item) -> Result<()> {
        if !self.surroundings.workspaces.is_read(&item.workspace_id, &item.path) {
            return Ok(());
        }
        let value = json!({"state": "Delivered", "rule": "", "at": Timestamp::now()});
        let facet = FacetPut {
            item_id: item.id.clone(),
            version: item.version.unwrap_or_default(),
            name: self.surroundings.facet.clone(),
            value: Some(value),
            announce: false,
        };
        let key = IdempotencyKey(format!("{}-own", delivery.key));
        self.surroundings.tenant.put_facets(&[facet], &key).await
    }

    async fn password(&self, reference: &SecretKeyRef) -> Result<String> {
        let values = self.surroundings.references.keys(&reference.name).await?;
        let found = values.into_iter().find(|(key, _)| *key == reference.key);
        let missing = || Error::new(Kind::Reference, format!("Secret {} has no key {}", reference.name, reference.key));
        Ok(found.ok_or_else(missing)?.1.expose().to_owned())
    }

    /// The link that an earlier try made, where there can be one.
    async fn known_link(&self, item: &Item, new: &NewLink, repeated: bool) -> Result<Option<Link>> {
        if !repeated {
            return Ok(None);
        }
        let links = self.surroundings.tenant.links(&item.workspace_id).await?;
        let now = Timestamp::now();
        Ok(links.into_iter().find(|link| {
            link.managed
                && link.item_id == item.id
                && link.audience == new.audience
                && link.recipients == new.recipients
                && link.has_password == new.password.is_some()
                && link.max_downloads == new.max_downloads
                && link.expires_at.is_none_or(|at| at > now)
        }))
    }

    /// `repeated`: the file was there already, and perhaps its share.
    async fn share(&self, share: &Sharing, delivery: &Delivery, target: &Target, item: &Item, repeated: bool) -> Result<()> {
        let tenant = &self.surroundings.tenant;
        let cause = &self.surroundings.cause;
        let now = Timestamp::now();
        if share.audience == Audience::Guests {
            for recipient in &target.recipients {
                tenant.ensure_guest(recipient, cause).await?;
            }
        }
        let password = match &share.password {
            Some(reference) => Some(self.password(reference).await?),
            None => None,
        };
        let expires_at = share.expires_at(now, &target.workspace.sharing, self.surroundings.ceiling.as_ref())?;
        let new = NewLink {
            audience: share.audience,
            expires_at,
            password,
            max_downloads: share.max_downloads,
            download: None,
            recipients: if share.audience == Audience::Guests { target.recipients.clone() } else { Vec::new() },
            managed: true,
        };
        let version = item.version.unwrap_or_default();
        let link = match self.known_link(item, &new, repeated).await? {
            Some(link) => link,
            None => {
                // A repeated call under one key must say the same.
                let end = expires_at.map_or(0, Timestamp::as_second);
                let key = IdempotencyKey(format!("{}-link-{version}-{end}", delivery.key));
                tenant.create_link(&item.id, &new, &key, cause).await?
            }
        };
        if !share.notify {
            return Ok(());
        }
        let url = link.url.ok_or_else(|| Error::new(Kind::Rejected, "File 360 does not tell the link's address"))?;
        for recipient in &target.recipients {
            let notice = notice(share, recipient, item, &url);
            let digest = hex(&Sha256::digest(recipient)[..8]);
            let key = IdempotencyKey(format!("{}-notice-{version}-{digest}", delivery.key));
            tenant.notify(&notice, &key).await?;
        }
        Ok(())
    }
}

fn notice(share: &Sharing, recipient: &str, item: &Item, url: &str) -> NewNotification {
    NewNotification {
        template: "share-notice".into(),
        locale: Some(share.locale.clone()),
        to: recipient.to_owned(),
        params: BTreeMap::from([("item".to_owned(), item.name.clone()), ("url".to_owned(), url.to_owned())]),
    }
}

#[async_trait]
impl Destination for Publication {
    fn kind(&self) -> &'static str {
        "file360"
    }

    fn widens_access(&self) -> bool {
        self.share.as_ref().is_some_and(|share| share.audience > Audience::Members)
    }

    async fn deliver(&self, delivery: &Delivery) -> Result<Receipt> {
        let target = self.target(delivery).await?;
        let (item, duplicate, bytes) = self.put(delivery, &target).await?;
        self.mark_own(delivery, &item).await?;
        if let Some(share) = &self.share {
            self.share(share, delivery, &target, &item, duplicate).await.map_err(|error| error.while_doing("share"))?;
        }
        let version = item.version.unwrap_or_default();
        Ok(Receipt { reference: format!("{}@{version}", item.id), bytes, duplicate, response: None })
    }

    fn place(&self) -> Option<&str> {
        self.place.as_deref()
    }

    /// The ids of the files in the workspace. `None` where each file chooses its workspace, and when there are more than can be compared.
    async fn listing(&self, _: &RouteId) -> Result<Option<Vec<String>>> {
        let Choice::Name(name) = &self.workspace else { return Ok(None) };
        let Some(workspace) = self.surroundings.workspaces.id_of(name).await? else {
            return Err(Error::new(Kind::Conflict, format!("SecureWorkspace {name} has no workspace")));
        };
        let tenant = &self.surroundings.tenant;
        let workspace = workspace.as_str();
        let mut listing = Box::pin(pages(|cursor| async move { tenant.files(workspace, "/", cursor.as_deref()).await }));
        let mut ids = Vec::new();
        while let Some(page) = listing.try_next().await? {
            ids.extend(page.into_iter().map(|item| item.id));
            if ids.len() > MAX_LISTING {
                return Ok(None);
            }
        }
        Ok(Some(ids))
    }

    fn listed_as<'a>(&self, _: &'a str, reference: &'a str) -> &'a str {
        reference.rsplit_once('@').map_or(reference, |(item, _)| item)
    }

    async fn is_gone(&self, name: &str) -> Result<bool> {
        let found = self.surroundings.tenant.item(name).await?;
        Ok(found.is_none_or(|item| item.state == ItemState::Trashed))
    }
}

impl Sharing {
    fn compile(spec: &ShareSpec) -> Result<Self, InvalidField> {
        let recipients = spec.recipients.as_deref().map(|text| Expression::compile(text, NAMES)).transpose();
        let recipients = recipients.map_err(|invalid| InvalidField::expression("file360.share.recipients", &invalid))?;
        let notify = spec.notify.unwrap_or(false);
        if recipients.is_none() && (notify || spec.audience == Audience::Guests) {
            let why = "needs recipients: who is to be notified, or who the guests are";
            return Err(InvalidField::value("file360.share", why));
        }
        let expires_after = spec.expires_after.as_deref().map(str::parse).transpose();
        Ok(Self {
            audience: spec.audience,
            recipients,
            expires_after: expires_after.map_err(|_| InvalidField::value("file360.share.expiresAfter", "is no period"))?,
            password: spec.password_ref.clone(),
            max_downloads: spec.max_downloads,
            notify,
            locale: spec.locale.clone().unwrap_or_else(|| "en".into()),
        })
    }

    /// R9: recipients, audience and end pass the workspace's rule and the Connection's ceiling, and nothing that an unverified outsider entered
    /// decides who gets access. Returns the recipients.
    fn permitted(&self, delivery: &Delivery, rules: &SharingRules, ceiling: Option<&MaxSharing>) -> Result<Vec<String>> {
        let refused = |why: String| Err(Error::new(Kind::Rejected, format!("share: {why}")));
        if self.audience > rules.links.max_audience {
            return refused(format!(
                "audience {:?} is wider than the workspace's sharing.links.maxAudience ({:?})",
                self.audience, rules.links.max_audience
            ));
        }
        if let Some(max) = ceiling.and_then(|ceiling| ceiling.link_audience).filter(|max| self.audience > *max) {
            return refused(format!("audience {:?} is wider than the Connection's ceiling ({max:?})", self.audience));
        }
        if let Some(max) = ceiling.and_then(|ceiling| ceiling.external).filter(|max| !lets_out(*max, self.audience)) {
            return refused(format!(
                "audience {:?} is wider than the Connection's ceiling (external: {max:?})",
                self.audience
            ));
        }
        // Whoever has the link has any address: that fits no list of domains.
        if self.audience == Audience::Anyone && ceiling.is_some_and(|ceiling| ceiling.allowed_domains.is_some()) {
            return refused("audience Anyone is wider than the domains of the Connection's ceiling".into());
        }
        if rules.links.password_required && self.password.is_none() {
            return refused("the workspace's sharing rule asks for a password; set share.passwordRef".into());
        }
        self.expires_at(Timestamp::now(), rules, ceiling)?;
        let Some(expression) = &self.recipients else { return Ok(Vec::new()) };
        if delivery.untrusted && depends_on_uploader(expression) {
            return refused(
                "the recipients depend on what an outsider without a verified address entered; set requireEmail on the upload request".into(),
            );
        }
        let recipients = expression.texts(&delivery.variables);
        let recipients =
            recipients.map_err(|failed| Error::new(Kind::Rejected, format!("share.recipients: {}", failed.message)))?;
        if recipients.len() > MOST_RECIPIENTS {
            return refused(format!("{} recipients are more than {MOST_RECIPIENTS}", recipients.len()));
        }
        // Of both the narrower: a workspace that was wider before the ceiling stays so, its shares do not.
        let external = ceiling.and_then(|ceiling| ceiling.external).map_or(rules.external, |max| max.min(rules.external));
        let rules = &SharingRules { external, ..rules.clone() };
        for recipient in &recipients {
            let shown = clean(recipient, 100);
            let Some(domain) = domain_of(recipient) else { return refused(format!("{shown} is no e-mail address")) };
            if self.audience >= Audience::Guests && !lets_in(rules, recipient) {
                return refused(format!("{shown} is not allowed by the workspace's sharing rule"));
            }
            let domains = ceiling.and_then(|ceiling| ceiling.allowed_domains.as_ref());
            if domains.is_some_and(|domains| !domains.iter().any(|allowed| domain_matches(&allowed.to_lowercase(), &domain)))
            {
                return refused(format!("{shown} is not within the Connection's ceiling"));
            }
        }
        Ok(recipients)
    }

    /// When the link ends: so long after the hour that began last, so that a try that is repeated says the same; never later than rule and
    /// ceiling allow.
    fn expires_at(&self, now: Timestamp, rules: &SharingRules, ceiling: Option<&MaxSharing>) -> Result<Option<Timestamp>> {
        let out_of_range = |_| Error::new(Kind::Rejected, "share.expiresAfter is out of range");
        let hour = Timestamp::from_second(now.as_second() / 3600 * 3600).map_err(out_of_range)?.to_zoned(TimeZone::UTC);
        let most = [rules.links.max_days, ceiling.and_then(|ceiling| ceiling.link_days)].into_iter().flatten().min();
        let latest =
            most.map(|days| hour.checked_add(Span::new().days(i64::from(days)))).transpose().map_err(out_of_range)?;
        let Some(span) = self.expires_after else { return Ok(latest.map(|at| at.timestamp())) };
        let wanted = hour.checked_add(span).map_err(out_of_range)?;
        if latest.is_some_and(|latest| wanted > latest) {
            let why =
                format!("share.expiresAfter exceeds the longest life of links here ({} days)", most.unwrap_or_default());
            return Err(Error::new(Kind::Rejected, why));
        }
        Ok(Some(wanted.timestamp()))
    }
}

/// A folder's path from an expression's result: untrusted (R6). Segments are in NFC.
fn folder_path(text: &str) -> Result<String> {
    let segments = text.split('/').filter(|part| !part.is_empty()).map(segment).collect::<Result<Vec<_>>>()?;
    Ok(format!("/{}", segments.join("/")))
}

/// One name from an expression's result: untrusted (R6).
fn segment(text: &str) -> Result<String> {
    let name: String = text.nfc().collect();
    let is_wrong = |c: char| {
        c.is_control()
            || c == '/'
            || c == '\\'
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
    };
    if name.is_empty()
        || name == "."
        || name == ".."
        || name.len() > 255
        || name.chars().any(is_wrong)
        || name.trim() != name
    {
        let why = format!("`{}` cannot be the name of a file or folder; set fileName or path", clean(&name, 100));
        return Err(Error::new(Kind::Rejected, why));
    }
    Ok(name)
}

/// What stands after the last separator of an object's key.
fn last_segment(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}
