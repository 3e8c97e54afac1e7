//! What a spec asks for, normalised: defaults filled in, names folded, parents of folders added. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::api::secure_workspace::{
    AccessMode, Applied, LinkLimits, MemberKind, MemberSpec, SecureWorkspaceSpec, Sharing, UploadRequestSpec,
};
use crate::documents::rules::accept_of;
use crate::error::{Error, Kind, Result};
use crate::file360::model::{
    Accept, Audience, ExternalSharing, FieldKind, LinkRules, PrincipalKind, RequestField, Role, SharingRules,
    UploadRequestInput,
};
use crate::file360::names::fold;
use crate::file360::sharing::domain_matches;
use crate::hex::hex;

/// A spec, normalised.
#[derive(Clone, Debug, PartialEq)]
pub struct Desired {
    /// Name for people.
    pub display_name: String,
    /// Classification; `None`: not declared.
    pub classification: Option<String>,
    /// Declared metadata.
    pub metadata: BTreeMap<String, String>,
    /// Sharing rule; `None`: not declared.
    pub sharing: Option<SharingRules>,
    /// Folders by path, so parents come before children.
    pub folders: BTreeMap<String, DesiredFolder>,
    /// `None`: the spec says nothing about access.
    pub access_mode: Option<AccessMode>,
    /// Members and grants that hold now.
    pub members: BTreeMap<MemberKey, DesiredMember>,
    /// Upload requests by name that hold now.
    pub requests: BTreeMap<String, UploadRequestInput>,
    /// Fingerprints of the declared aspects.
    pub applied: Applied,
    /// The clock alone changes this then.
    pub next_change_at: Option<Timestamp>,
}

/// A declared folder, or the parent of one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DesiredFolder {
    /// Classification; `None`: not declared.
    pub classification: Option<String>,
    /// Declared metadata.
    pub metadata: BTreeMap<String, String>,
    /// Lock; `None`: not declared.
    pub locked: Option<bool>,
}

/// What identifies a member or grant. Names are folded to lower case, as File 360 compares them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MemberKey {
    /// Kind of principal.
    pub kind: PrincipalKind,
    /// Folded name.
    pub name: String,
    /// `/`, or the folder below which the grant holds.
    pub path: String,
}

/// What a member or grant should be.
#[derive(Clone, Debug, PartialEq)]
pub struct DesiredMember {
    /// The name as declared.
    pub name: String,
    /// The role.
    pub role: Role,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
    /// Why.
    pub reason: Option<String>,
}

/// What a managed folder carries in File 360: the path it is declared under, which of its properties were declared, and
/// whether it was there before. It travels with the folder when that is renamed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FolderMark {
    /// Declared path.
    pub path: String,
    /// Declared properties: `classification`, `locked`, `metadata/<key>`.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub fields: BTreeSet<String>,
    /// People made it: it is never removed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub adopted: bool,
}

impl FolderMark {
    /// Reads the mark of a folder; something else there counts as people's.
    pub fn parse(managed_key: Option<&str>) -> Option<Self> {
        serde_json::from_str(managed_key?).ok()
    }

    /// The text that is kept in File 360.
    pub fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl Desired {
    /// Normalises `spec` as of `now`. What cannot be is refused with the field and the way out.
    pub fn of(spec: &SecureWorkspaceSpec, now: Timestamp) -> Result<Self> {
        let sharing = spec.sharing.as_ref().map(sharing_rules).transpose()?;
        folders_differ_by_more_than_case(spec)?;
        metadata_keys_are_short(spec)?;
        delete_grace(spec, now)?;
        let mut next_change_at = NextChange { now, at: None };
        let members = members(spec, &mut next_change_at)?;
        guests_fit_the_sharing_rule(&members, sharing.as_ref())?;
        let requests = upload_requests(spec, &mut next_change_at)?;
        Ok(Self {
            display_name: spec.display_name.clone(),
            classification: spec.classification.clone(),
            metadata: spec.metadata.clone().unwrap_or_default(),
            folders: folders(spec),
            access_mode: spec.access.as_ref().map(|access| access.mode.unwrap_or_default()),
            applied: fingerprints(spec),
            sharing,
            members,
            requests,
            next_change_at: next_change_at.at,
        })
    }

    /// The names of declared workspace properties of one aspect, as kept in `managedFields`.
    pub fn metadata_fields(&self) -> BTreeSet<String> {
        let mut fields: BTreeSet<String> = self.metadata.keys().map(|key| format!("metadata/{key}")).collect();
        fields.extend(self.classification.as_ref().map(|_| "classification".to_owned()));
        fields
    }

    /// Whether outsiders are meant to get in: guests or upload requests.
    pub fn has_outsiders(&self) -> bool {
        !self.requests.is_empty() || self.members.keys().any(|key| key.kind == PrincipalKind::Guest)
    }
}

impl DesiredFolder {
    /// The names of the declared properties.
    pub fn fields(&self) -> BTreeSet<String> {
        let mut fields: BTreeSet<String> = self.metadata.keys().map(|key| format!("metadata/{key}")).collect();
        fields.extend(self.classification.as_ref().map(|_| "classification".to_owned()));
        fields.extend(self.locked.map(|_| "locked".to_owned()));
        fields
    }
}

struct NextChange {
    now: Timestamp,
    at: Option<Timestamp>,
}

impl NextChange {
    /// Whether something that ends at `end` holds now; remembers when that changes.
    fn holds(&mut self, end: Option<Timestamp>) -> bool {
        let Some(end) = end else { return true };
        if end <= self.now {
            return false;
        }
        self.at = Some(self.at.map_or(end, |at| at.min(end)));
        true
    }
}

fn folders(spec: &SecureWorkspaceSpec) -> BTreeMap<String, DesiredFolder> {
    let mut folders = BTreeMap::new();
    for folder in spec.folders.iter().flatten() {
        for parent in parents(&folder.path) {
            folders.entry(parent.to_owned()).or_insert_with(DesiredFolder::default);
        }
        folders.insert(
            folder.path.clone(),
            DesiredFolder {
                classification: folder.classification.clone(),
                metadata: folder.metadata.clone().unwrap_or_default(),
                locked: folder.locked,
            },
        );
    }
    folders
}

/// The proper parents of `/a/b/c`: `/a`, `/a/b`.
pub fn parents(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').skip(1).map(|(at, _)| &path[..at])
}

/// File 360 compares names without case.
fn folders_differ_by_more_than_case(spec: &SecureWorkspaceSpec) -> Result<()> {
    let mut seen: BTreeMap<String, &str> = BTreeMap::new();
    for folder in spec.folders.iter().flatten() {
        for path in parents(&folder.path).chain([folder.path.as_str()]) {
            match seen.insert(fold(path), path) {
                Some(other) if other != path => {
                    return Err(invalid(format!(
                        "folders: {other} and {path} differ only in case; File 360 takes them for one folder"
                    )));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// Longest metadata key, in characters.
const LONGEST_KEY: usize = 63;

fn metadata_keys_are_short(spec: &SecureWorkspaceSpec) -> Result<()> {
    let of_folders = spec.folders.iter().flatten().flat_map(|folder| folder.metadata.iter().flatten());
    let long = spec
        .metadata
        .iter()
        .flatten()
        .chain(of_folders)
        .map(|(key, _)| key)
        .find(|key| key.is_empty() || key.chars().count() > LONGEST_KEY);
    long.map_or(Ok(()), |key| Err(invalid(format!("metadata: the key {key:?} must have 1 to {LONGEST_KEY} characters"))))
}

/// How long a trashed workspace stays, when the spec does not say.
const DEFAULT_GRACE: &str = "P30D";
/// Longest stay in the trash.
const LONGEST_GRACE: Duration = Duration::from_hours(3650 * 24);

/// How long the workspace stays in the trash: a calendar period that starts now.
pub fn delete_grace(spec: &SecureWorkspaceSpec, now: Timestamp) -> Result<Duration> {
    let text = spec.delete_grace.as_deref().unwrap_or(DEFAULT_GRACE);
    let wrong = || invalid(format!("spec.deleteGrace {text} is no ISO 8601 period of at most 3650 days, such as P30D"));
    let span: jiff::Span = text.parse().map_err(|_| wrong())?;
    let end = now.to_zoned(jiff::tz::TimeZone::UTC).checked_add(span).map_err(|_| wrong())?;
    let grace: Duration = end.timestamp().duration_since(now).try_into().map_err(|_| wrong())?;
    if grace > LONGEST_GRACE { Err(wrong()) } else { Ok(grace) }
}

fn members(spec: &SecureWorkspaceSpec, next: &mut NextChange) -> Result<BTreeMap<MemberKey, DesiredMember>> {
    let top = spec.access.iter().flat_map(|access| access.members.iter().flatten()).map(|member| ("/", member));
    let below = spec
        .folders
        .iter()
        .flatten()
        .flat_map(|folder| folder.members.iter().flatten().map(|member| (folder.path.as_str(), member)));
    let mut members = BTreeMap::new();
    for (path, member) in top.chain(below) {
        let (key, wanted) = member_at(path, member)?;
        if !next.holds(wanted.expires_at) {
            continue;
        }
        if members.insert(key, wanted).is_some() {
            return Err(invalid(format!(
                "{} {} is named twice for {path} (names compare without case)",
                kind_name(member.kind),
                member.name
            )));
        }
    }
    Ok(members)
}

fn member_at(path: &str, member: &MemberSpec) -> Result<(MemberKey, DesiredMember)> {
    let kind = match member.kind {
        MemberKind::User => PrincipalKind::User,
        MemberKind::Group => PrincipalKind::Group,
        MemberKind::Guest => PrincipalKind::Guest,
    };
    let name = if kind == PrincipalKind::Guest { folded_email(&member.name)? } else { member.name.to_lowercase() };
    if kind == PrincipalKind::Guest && matches!(member.role, Role::Owner | Role::Manager) {
        return Err(invalid(format!(
            "guest {} cannot be {:?}; give at most Editor to people outside",
            member.name, member.role
        )));
    }
    let wanted = DesiredMember {
        name: member.name.clone(),
        role: member.role,
        expires_at: member.expires_at,
        reason: member.reason.clone().filter(|reason| !reason.is_empty()),
    };
    Ok((MemberKey { kind, name, path: path.to_owned() }, wanted))
}

fn kind_name(kind: MemberKind) -> &'static str {
    match kind {
        MemberKind::User => "user",
        MemberKind::Group => "group",
        MemberKind::Guest => "guest",
    }
}

/// An e-mail address in lower case with its domain as A-label.
fn folded_email(address: &str) -> Result<String> {
    let wrong = || invalid(format!("guest {address} is not an e-mail address (local@domain)"));
    let (local, domain) = address.rsplit_once('@').ok_or_else(wrong)?;
    if local.is_empty() || local.contains(['@', ' ', '"', ',', ';', '<', '>']) || !domain.contains('.') {
        return Err(wrong());
    }
    Ok(format!("{}@{}", local.to_lowercase(), a_label(domain).map_err(|()| wrong())?))
}

pub(super) fn a_label(domain: &str) -> Result<String, ()> {
    idna::domain_to_ascii_strict(domain).map_err(|_| ()).map(|label| label.to_lowercase())
}

fn sharing_rules(sharing: &Sharing) -> Result<SharingRules> {
    let mut allowed_domains = Vec::new();
    for domain in sharing.allowed_domains.iter().flatten() {
        let (prefix, name) = domain.strip_prefix("*.").map_or(("", domain.as_str()), |name| ("*.", name));
        let label = a_label(name).map_err(|()| invalid(format!("sharing.allowedDomains: {domain} is not a domain name")))?;
        allowed_domains.push(format!("{prefix}{label}"));
    }
    allowed_domains.sort();
    allowed_domains.dedup();
    let limits = sharing.links.clone().unwrap_or_default();
    Ok(SharingRules {
        external: sharing.external,
        allowed_domains,
        reshare: sharing.reshare.unwrap_or(false),
        links: link_rules(&limits),
    })
}

fn link_rules(limits: &LinkLimits) -> LinkRules {
    LinkRules {
        max_audience: limits.max_audience.unwrap_or(Audience::Members),
        max_days: limits.max_days,
        password_required: limits.password_required.unwrap_or(false),
        download: limits.download.unwrap_or(true),
    }
}

fn guests_fit_the_sharing_rule(members: &BTreeMap<MemberKey, DesiredMember>, sharing: Option<&SharingRules>) -> Result<()> {
    let Some(sharing) = sharing else { return Ok(()) };
    for key in members.keys().filter(|key| key.kind == PrincipalKind::Guest) {
        let domain = key.name.rsplit_once('@').map_or("", |(_, domain)| domain);
        let fits = match sharing.external {
            ExternalSharing::Disabled => false,
            ExternalSharing::Anyone => true,
            ExternalSharing::AllowListed => sharing.allowed_domains.iter().any(|allowed| domain_matches(allowed, domain)),
        };
        if !fits {
            return Err(invalid(format!(
                "guest {} is not allowed by this workspace's own sharing rule; add {domain} to sharing.allowedDomains or remove the guest",
                key.name
            )));
        }
    }
    Ok(())
}

fn upload_requests(spec: &SecureWorkspaceSpec, next: &mut NextChange) -> Result<BTreeMap<String, UploadRequestInput>> {
    let mut requests = BTreeMap::new();
    let limits = limits(spec)?;
    let mut secrets = BTreeSet::new();
    for request in spec.upload_requests.iter().flatten() {
        if let Some(target) = request.write_url_to.as_ref().filter(|target| !secrets.insert(target.secret_name.as_str())) {
            return Err(invalid(format!("uploadRequests: two of them write to Secret {}", target.secret_name)));
        }
        if next.holds(request.expires_at) {
            requests.insert(request.name.clone(), request_input(request, &limits)?);
        }
    }
    Ok(requests)
}

/// What files for a required document must be, by its name, where the spec says something about that.
fn limits(spec: &SecureWorkspaceSpec) -> Result<BTreeMap<String, Accept>> {
    let mut limits = BTreeMap::new();
    for document in spec.required_documents.iter().flatten() {
        let name = &document.name;
        let accept = accept_of(document.accept.as_ref())
            .ok_or_else(|| invalid(format!("spec.requiredDocuments {name}: accept.maxSize is no size such as 20Mi")))?;
        if accept != Accept::default() {
            limits.insert(name.clone(), accept);
        }
    }
    Ok(limits)
}

fn request_input(request: &UploadRequestSpec, limits: &BTreeMap<String, Accept>) -> Result<UploadRequestInput> {
    let mut fields = Vec::new();
    for field in request.fields.iter().flatten() {
        let kind = field.kind.unwrap_or(FieldKind::Text);
        let options = field.options.clone().unwrap_or_default();
        if (kind == FieldKind::Select) == options.is_empty() {
            return Err(invalid(format!(
                "uploadRequests {}: field {} of type {kind:?} {} options",
                request.name,
                field.name,
                if kind == FieldKind::Select { "needs" } else { "has no use for" }
            )));
        }
        let limited = options.iter().filter_map(|option| Some((option.clone(), limits.get(option)?.clone())));
        fields.push(RequestField {
            accept: limited.collect(),
            name: field.name.clone(),
            label: field.label.clone().unwrap_or_else(|| field.name.clone()),
            kind,
            options,
            required: field.required.unwrap_or(false),
        });
    }
    Ok(UploadRequestInput {
        path: request.path.clone(),
        require_email: request.require_email.unwrap_or(false),
        expires_at: request.expires_at,
        fields,
        managed: true,
    })
}

fn fingerprints(spec: &SecureWorkspaceSpec) -> Applied {
    let grants: Vec<_> = spec.folders.iter().flatten().map(|folder| (&folder.path, &folder.members)).collect();
    let plain_folders: Vec<_> = spec
        .folders
        .iter()
        .flatten()
        .map(|folder| (&folder.path, &folder.classification, &folder.metadata, folder.locked))
        .collect();
    Applied {
        access: fingerprint(&(&spec.access, grants)),
        folders: fingerprint(&plain_folders),
        metadata: fingerprint(&(&spec.display_name, &spec.classification, &spec.metadata)),
        sharing: match limits(spec) {
            Ok(limits) if !limits.is_empty() => fingerprint(&(&spec.sharing, &spec.upload_requests, limits)),
            _ => fingerprint(&(&spec.sharing, &spec.upload_requests)),
        },
    }
}

fn fingerprint(value: &impl Serialize) -> String {
    let text = serde_json::to_vec(value).unwrap_or_default();
    hex(&Sha256::digest(text)[..8])
}

fn invalid(message: String) -> Error {
    let mut error = Error::new(Kind::Rejected, message);
    error.code = "invalid-spec".into();
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(more: &serde_json::Value) -> SecureWorkspaceSpec {
        let mut spec = serde_json::json!({"connectionRef": {"name": "c"}, "displayName": "w"});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(spec).unwrap()
    }

    fn refusal(more: &serde_json::Value) -> String {
        Desired::of(&spec(more), Timestamp::UNIX_EPOCH).unwrap_err().to_string()
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_field() {
        let guest = |name: &str, role: &str| serde_json::json!({"kind": "Guest", "name": name, "role": role});
        let cases = [
            (serde_json::json!({"folders": [{"path": "/Docs/A"}, {"path": "/docs/B"}]}), "differ only in case"),
            (serde_json::json!({"metadata": {"k".repeat(64): "v"}}), "metadata"),
            (serde_json::json!({"deleteGrace": "P11Y"}), "deleteGrace"),
            (serde_json::json!({"access": {"members": [guest("nobody", "Viewer")]}}), "not an e-mail address"),
            (serde_json::json!({"access": {"members": [guest("a@b.example", "Owner")]}}), "cannot be Owner"),
            (
                serde_json::json!({"access": {"members": [guest("A@b.example", "Viewer"), guest("a@B.example", "Viewer")]}}),
                "named twice",
            ),
            (
                serde_json::json!({"sharing": {"external": "AllowListed", "allowedDomains": ["a.example"]},
                    "access": {"members": [guest("x@b.example", "Viewer")]}}),
                "sharing.allowedDomains",
            ),
            (
                serde_json::json!({"uploadRequests": [{"name": "u", "path": "/", "fields": [{"name": "f", "type": "Select"}]}]}),
                "needs options",
            ),
            (
                serde_json::json!({"uploadRequests": [
                    {"name": "u", "path": "/", "writeUrlTo": {"secretName": "s"}},
                    {"name": "v", "path": "/", "writeUrlTo": {"secretName": "s"}}]}),
                "two of them write",
            ),
        ];
        for (more, expected) in cases {
            let refusal = refusal(&more);
            assert!(refusal.contains(expected), "{more} is refused with {refusal:?}");
        }
    }

    #[test]
    fn what_has_ended_is_not_wanted_and_the_next_end_is_known() {
        let now: Timestamp = "2026-06-01T00:00:00Z".parse().unwrap();
        let member =
            |name: &str, end: &str| serde_json::json!({"kind": "User", "name": name, "role": "Viewer", "expiresAt": end});
        let members = [
            member("past", "2026-05-31T00:00:00Z"),
            member("later", "2027-01-01T00:00:00Z"),
            member("soon", "2026-07-01T00:00:00Z"),
        ];
        let desired = Desired::of(&spec(&serde_json::json!({"access": {"members": members}})), now).unwrap();
        let names: Vec<&str> = desired.members.keys().map(|key| key.name.as_str()).collect();
        assert_eq!(names, ["later", "soon"]);
        assert_eq!(desired.next_change_at, Some("2026-07-01T00:00:00Z".parse().unwrap()));
    }

    #[test]
    fn a_grace_follows_the_calendar() {
        let now: Timestamp = "2026-01-31T00:00:00Z".parse().unwrap();
        let days = |text: &str| {
            let spec = spec(&serde_json::json!({"deleteGrace": text}));
            delete_grace(&spec, now).unwrap().as_secs() / 86_400
        };
        assert_eq!([days("P30D"), days("P1M"), days("P1Y"), days("P2W")], [30, 28, 365, 14]);
    }

    #[test]
    fn domains_match_exactly_or_below_a_star() {
        assert!(domain_matches("acme.com", "acme.com"));
        assert!(!domain_matches("acme.com", "x.acme.com"));
        assert!(domain_matches("*.acme.com", "x.acme.com"));
        assert!(domain_matches("*.acme.com", "x.y.acme.com"));
        assert!(!domain_matches("*.acme.com", "acme.com"));
        assert!(!domain_matches("*.acme.com", "evilacme.com"));
        assert!(!domain_matches("*.acme.com", ".acme.com"));
    }

    #[test]
    fn parents_come_from_the_top() {
        assert_eq!(parents("/a/b/c").collect::<Vec<_>>(), ["/a", "/a/b"]);
        assert_eq!(parents("/a").count(), 0);
    }
}
