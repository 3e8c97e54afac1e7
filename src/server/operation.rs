//! The operations of the contract: one table that the router, the counters, `authorize` and the tests share.

use super::authorize::Effect;

/// What a client's token must allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Reads workspaces, items, content, the change feed.
    Read,
    /// Changes workspaces, items, content.
    Write,
    /// Members, guests, links, upload requests, notifications.
    Share,
    /// Intake decisions, quarantine, retention, holds, records.
    Govern,
    /// The audit feed.
    Audit,
    /// Foreign owner marks, purge, acting on behalf of people.
    Admin,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 6] = [Self::Read, Self::Write, Self::Share, Self::Govern, Self::Audit, Self::Admin];

    /// The word in tokens and seeds.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Share => "share",
            Self::Govern => "govern",
            Self::Audit => "audit",
            Self::Admin => "admin",
        }
    }

    /// The scope with this word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.name() == word)
    }
}

/// Who may call at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Without a token: token, health, pages for outsiders, fault switchboard.
    Open,
    /// Any valid token.
    Token,
    /// A token with this scope.
    Scope(Scope),
}

/// Whether a call needs an `Idempotency-Key`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// Reads, and calls that are idempotent by themselves.
    Natural,
    /// Creating calls: the key is required.
    Keyed,
}

macro_rules! operations {
    ($($name:ident $id:literal $method:ident $path:literal $access:expr, $effect:ident, $repeat:ident, [$($query:literal)*];)*) => {
        /// One operation of the contract. The name in `openapi.yaml` is [`Operation::id`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[allow(missing_docs, reason = "named by the contract, which describes each")]
        pub enum Operation { $($name),* }

        impl Operation {
            /// Every operation, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// `operationId` of the contract.
            pub fn id(self) -> &'static str { match self { $(Self::$name => $id),* } }

            /// HTTP method.
            pub fn method(self) -> http::Method { match self { $(Self::$name => http::Method::$method),* } }

            /// Path template.
            pub fn path(self) -> &'static str { match self { $(Self::$name => $path),* } }

            /// Who may call.
            pub fn access(self) -> Access { match self { $(Self::$name => $access),* } }

            /// What it does, for `authorize`.
            pub fn effect(self) -> Effect { match self { $(Self::$name => Effect::$effect),* } }

            /// How repeats are recognised.
            pub fn repeat(self) -> Repeat { match self { $(Self::$name => Repeat::$repeat),* } }

            /// Query parameters it knows; any other is refused.
            pub fn query(self) -> &'static [&'static str] { match self { $(Self::$name => &[$($query),*]),* } }
        }
    };
}

use Access::{Open, Token};
const READ: Access = Access::Scope(Scope::Read);
const WRITE: Access = Access::Scope(Scope::Write);
const SHARE: Access = Access::Scope(Scope::Share);
const GOVERN: Access = Access::Scope(Scope::Govern);
const AUDIT: Access = Access::Scope(Scope::Audit);
const ADMIN: Access = Access::Scope(Scope::Admin);

operations! {
    IssueToken "issueToken" POST "/oauth2/token" Open, Nothing, Natural, [];
    GetHealth "getHealth" GET "/healthz" Open, Nothing, Natural, [];
    GetService "getService" GET "/v1/service" Token, Nothing, Natural, [];
    WhoAmI "whoAmI" GET "/v1/me" Token, Nothing, Natural, [];

    ListPrincipals "listPrincipals" GET "/v1/principals" READ, ReadDirectory, Natural, ["kind" "name" "cursor" "limit"];
    GetPrincipal "getPrincipal" GET "/v1/principals/{id}" READ, ReadDirectory, Natural, [];
    ListGroupMembers "listGroupMembers" GET "/v1/principals/{id}/members" READ, ReadDirectory, Natural, ["cursor" "limit"];
    PutGuest "putGuest" PUT "/v1/guests/{email}" SHARE, InviteGuest, Natural, [];

    ListWorkspaces "listWorkspaces" GET "/v1/workspaces" READ, ListWorkspaces, Natural, ["clusterId" "state" "cursor" "limit"];
    CreateWorkspace "createWorkspace" POST "/v1/workspaces" WRITE, CreateWorkspace, Keyed, [];
    CreateWorkspaceByKey "createWorkspaceByKey" PUT "/v1/workspaces/by-key/{system}/{key}" WRITE, CreateWorkspace, Natural, [];
    GetWorkspaceByKey "getWorkspaceByKey" GET "/v1/workspaces/by-key/{system}/{key}" READ, ReadWorkspace, Natural, [];
    GetWorkspace "getWorkspace" GET "/v1/workspaces/{id}" READ, ReadWorkspace, Natural, [];
    UpdateWorkspace "updateWorkspace" PATCH "/v1/workspaces/{id}" WRITE, ManageWorkspace, Natural, [];
    SetOwner "setOwner" PUT "/v1/workspaces/{id}/owner" WRITE, OwnWorkspace, Natural, [];
    TransitionWorkspace "transitionWorkspace" POST "/v1/workspaces/{id}/transitions" WRITE, Lifecycle, Keyed, [];
    DeleteWorkspace "deleteWorkspace" DELETE "/v1/workspaces/{id}" WRITE, DeleteWorkspace, Natural, ["graceSeconds"];
    RestoreWorkspace "restoreWorkspace" POST "/v1/workspaces/{id}/restorations" WRITE, RestoreWorkspace, Keyed, [];
    PurgeWorkspace "purgeWorkspace" POST "/v1/workspaces/{id}/purge" ADMIN, PurgeWorkspace, Keyed, [];

    ListMembers "listMembers" GET "/v1/workspaces/{id}/members" READ, ReadWorkspace, Natural, ["path" "cursor" "limit"];
    SetMember "setMember" PUT "/v1/workspaces/{id}/members/{principalId}" SHARE, ShareMembers, Natural, ["path"];
    RemoveMember "removeMember" DELETE "/v1/workspaces/{id}/members/{principalId}" SHARE, EndMembers, Natural, ["path"];

    ListFolders "listFolders" GET "/v1/workspaces/{id}/folders" READ, ReadContent, Natural, ["cursor" "limit"];
    CreateFolder "createFolder" POST "/v1/workspaces/{id}/folders" WRITE, AddFolder, Keyed, [];
    ResolvePath "resolvePath" GET "/v1/workspaces/{id}/resolve" READ, ReadContent, Natural, ["path"];
    GetItem "getItem" GET "/v1/items/{id}" READ, ReadContent, Natural, [];
    UpdateItem "updateItem" PATCH "/v1/items/{id}" WRITE, ChangeItem, Natural, [];
    DeleteItem "deleteItem" DELETE "/v1/items/{id}" WRITE, DeleteItem, Natural, ["ifEmpty" "purge"];
    ListFiles "listFiles" GET "/v1/workspaces/{id}/files" READ, ReadContent, Natural, ["path" "cursor" "limit"];
    GetAccess "getAccess" GET "/v1/items/{id}/access" READ, ReadContent, Natural, [];
    ListChildren "listChildren" GET "/v1/items/{id}/children" READ, ReadContent, Natural, ["cursor" "limit"];

    ListUploadRequests "listUploadRequests" GET "/v1/workspaces/{id}/upload-requests" READ, ReadWorkspace, Natural, ["cursor" "limit"];
    GetUploadRequest "getUploadRequest" GET "/v1/workspaces/{id}/upload-requests/{name}" READ, ReadWorkspace, Natural, [];
    PutUploadRequest "putUploadRequest" PUT "/v1/workspaces/{id}/upload-requests/{name}" SHARE, ShareRequest, Natural, [];
    PutChecklist "putChecklist" PUT "/v1/workspaces/{id}/upload-requests/{name}/checklist" SHARE, ShareRequest, Natural, [];
    DeleteUploadRequest "deleteUploadRequest" DELETE "/v1/workspaces/{id}/upload-requests/{name}" SHARE, EndShare, Natural, [];
    CreateLink "createLink" POST "/v1/items/{id}/links" SHARE, ShareLink, Keyed, [];
    ListLinks "listLinks" GET "/v1/workspaces/{id}/links" READ, ReadWorkspace, Natural, ["cursor" "limit"];
    GetLink "getLink" GET "/v1/links/{id}" READ, ReadWorkspace, Natural, [];
    UpdateLink "updateLink" PATCH "/v1/links/{id}" SHARE, ShareLink, Natural, [];
    DeleteLink "deleteLink" DELETE "/v1/links/{id}" SHARE, EndShare, Natural, [];

    GetFence "getFence" GET "/v1/fences/{clusterId}/{consumer}" READ, ClientOnly, Natural, [];
    PutFence "putFence" PUT "/v1/fences/{clusterId}/{consumer}" WRITE, ClientOnly, Natural, [];
    GetClientState "getClientState" GET "/v1/client-state/{key}" READ, ClientOnly, Natural, [];
    PutClientState "putClientState" PUT "/v1/client-state/{key}" WRITE, ClientOnly, Natural, [];
    ListClientState "listClientState" GET "/v1/client-state" READ, ClientOnly, Natural, ["prefix" "cursor" "limit"];
    BatchClientState "batchClientState" POST "/v1/client-state/batch" WRITE, ClientOnly, Keyed, [];
    DeleteClientState "deleteClientState" DELETE "/v1/client-state/{key}" WRITE, ClientOnly, Natural, [];
    ListChanges "listChanges" GET "/v1/changes" READ, ClientOnly, Natural, ["cursor" "limit" "wait"];

    UploadFile "uploadFile" POST "/v1/items/{id}/files" WRITE, AddFile, Keyed, ["name" "onConflict" "metadata[]"];
    PutContent "putContent" PUT "/v1/items/{id}/content" WRITE, ChangeFile, Natural, [];
    GetContent "getContent" GET "/v1/items/{id}/content" READ, Download, Natural, ["version"];
    ListVersions "listVersions" GET "/v1/items/{id}/versions" READ, ReadContent, Natural, ["cursor" "limit"];
    DeleteVersion "deleteVersion" DELETE "/v1/items/{id}/versions/{version}" WRITE, DeleteVersion, Natural, [];
    RestoreVersion "restoreVersion" POST "/v1/items/{id}/versions/{version}/restorations" WRITE, ChangeFile, Keyed, [];
    CreateUpload "createUpload" POST "/v1/uploads" WRITE, AddFile, Keyed, [];
    GetUpload "getUpload" GET "/v1/uploads/{id}" WRITE, Nothing, Natural, [];
    PutPart "putPart" PUT "/v1/uploads/{id}/parts/{number}" WRITE, Nothing, Natural, [];
    CommitUpload "commitUpload" POST "/v1/uploads/{id}/commit" WRITE, AddFile, Keyed, [];
    AbortUpload "abortUpload" DELETE "/v1/uploads/{id}" WRITE, Nothing, Natural, [];
    CopyItem "copyItem" POST "/v1/items/{id}/copies" WRITE, AddFile, Keyed, [];
    ListTrash "listTrash" GET "/v1/workspaces/{id}/trash" READ, ReadTrash, Natural, ["cursor" "limit"];
    RestoreItem "restoreItem" POST "/v1/items/{id}/restorations" WRITE, RestoreItem, Keyed, [];
    BatchMetadata "batchMetadata" POST "/v1/metadata/batch" WRITE, ChangeItem, Keyed, [];
    GetFacet "getFacet" GET "/v1/items/{id}/versions/{version}/facets/{name}" READ, ClientOnly, Natural, [];
    PutFacet "putFacet" PUT "/v1/items/{id}/versions/{version}/facets/{name}" WRITE, ClientOnly, Natural, [];
    BatchFacets "batchFacets" POST "/v1/facets/batch" WRITE, ClientOnly, Keyed, [];
    QueryFacets "queryFacets" GET "/v1/facets" READ, ClientOnly, Natural, ["name" "workspaceId" "cursor" "limit"];

    GetIntake "getIntake" GET "/v1/items/{id}/intake" GOVERN, Govern, Natural, [];
    PutIntake "putIntake" PUT "/v1/items/{id}/intake" GOVERN, Govern, Natural, [];
    ListPending "listPending" GET "/v1/pending" GOVERN, ClientOnly, Natural, ["workspaceId" "cursor" "limit"];
    Decide "decide" POST "/v1/items/{id}/decisions" GOVERN, Ungovern, Keyed, [];
    PutQuarantine "putQuarantine" PUT "/v1/items/{id}/quarantine" GOVERN, Ungovern, Natural, [];
    GetRetention "getRetention" GET "/v1/items/{id}/retention" READ, ReadContent, Natural, [];
    PutRetention "putRetention" PUT "/v1/items/{id}/retention" GOVERN, Govern, Natural, [];
    ListHolds "listHolds" GET "/v1/holds" GOVERN, ClientOnly, Natural, ["cursor" "limit"];
    GetHold "getHold" GET "/v1/holds/{key}" GOVERN, ClientOnly, Natural, [];
    PutHold "putHold" PUT "/v1/holds/{key}" GOVERN, ClientOnly, Natural, [];
    ListHeldItems "listHeldItems" GET "/v1/holds/{key}/items" GOVERN, ClientOnly, Natural, ["cursor" "limit"];
    AssignHold "assignHold" POST "/v1/holds/{key}/assignments" GOVERN, Ungovern, Keyed, [];
    ApplyHold "applyHold" PUT "/v1/items/{id}/holds/{key}" GOVERN, Govern, Natural, [];
    ReleaseHold "releaseHold" DELETE "/v1/items/{id}/holds/{key}" GOVERN, Ungovern, Natural, ["reason"];
    GetRecord "getRecord" GET "/v1/items/{id}/record" READ, ReadContent, Natural, [];
    PutRecord "putRecord" PUT "/v1/items/{id}/record" GOVERN, Govern, Natural, [];
    ListAuditEvents "listAuditEvents" GET "/v1/audit-events" AUDIT, ClientOnly, Natural, ["cursor" "limit" "from" "to" "item" "type"];

    CreateNotification "createNotification" POST "/v1/notifications" SHARE, ClientOnly, Keyed, [];
    ListNotifications "listNotifications" GET "/v1/notifications" ADMIN, ClientOnly, Natural, ["cursor" "limit"];

    OpenUploadPage "openUploadPage" GET "/u/{token}" Open, ReadContent, Natural, [];
    RequestUploadCode "requestUploadCode" POST "/u/{token}/code" Open, Nothing, Natural, [];
    VerifyUploadCode "verifyUploadCode" POST "/u/{token}/verify" Open, Nothing, Natural, [];
    UploadThroughPage "uploadThroughPage" POST "/u/{token}/files" Open, AddFile, Natural, [];
    OpenLinkPage "openLinkPage" GET "/s/{token}" Open, ReadContent, Natural, [];
    RequestLinkCode "requestLinkCode" POST "/s/{token}/code" Open, Nothing, Natural, [];
    GetLinkContent "getLinkContent" GET "/s/{token}/content" Open, Download, Natural, ["item"];
    DownloadThroughLink "downloadThroughLink" POST "/s/{token}/download" Open, Download, Natural, [];

    GetFaults "getFaults" GET "/test/faults" Open, Nothing, Natural, [];
    PutFaults "putFaults" PUT "/test/faults" Open, Nothing, Natural, [];
}

impl Operation {
    /// Changes something.
    pub fn is_mutating(self) -> bool {
        self.method() != http::Method::GET
    }

    /// Only there with the fault switchboard.
    pub fn is_test_only(self) -> bool {
        matches!(self, Self::GetFaults | Self::PutFaults)
    }

    /// Takes its body as it comes, instead of as one JSON document.
    pub fn streams(self) -> bool {
        matches!(self, Self::UploadFile | Self::PutContent | Self::PutPart | Self::UploadThroughPage)
    }

    /// The operation with this `operationId`.
    pub fn from_id(id: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|operation| operation.id() == id)
    }
}
