//! The fields: what each is set to, and around what.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Addresses, Arrive, Case};

/// References to Secrets and ConfigMaps, each with where it stands; `name only`: it has no key.
pub const REFERENCES: [(&str, &str); 26] = [
    ("from.http.hmacRef", "name only"),
    ("rules[].to[].file360.share.passwordRef", ""),
    ("rules[].to[].http.auth.bearer.tokenRef", ""),
    ("rules[].to[].http.auth.basic.usernameRef", ""),
    ("rules[].to[].http.auth.basic.passwordRef", ""),
    ("rules[].to[].http.auth.apiKey.keyRef", ""),
    ("rules[].to[].http.auth.oauth2.clientIdRef", ""),
    ("rules[].to[].http.auth.oauth2.clientSecretRef", ""),
    ("rules[].to[].http.tls.caRef", ""),
    ("rules[].to[].objectStore.s3.accessKeyIdRef", ""),
    ("rules[].to[].objectStore.s3.secretAccessKeyRef", ""),
    ("rules[].to[].objectStore.s3.sessionTokenRef", ""),
    ("rules[].to[].objectStore.s3.caRef", ""),
    ("rules[].to[].objectStore.sftp.privateKeyRef", ""),
    ("rules[].to[].objectStore.sftp.passwordRef", ""),
    ("rules[].to[].broker.nats.auth.tokenRef", ""),
    ("rules[].to[].broker.nats.auth.credentialsRef", ""),
    ("rules[].to[].broker.nats.auth.usernameRef", ""),
    ("rules[].to[].broker.nats.auth.passwordRef", ""),
    ("rules[].to[].broker.nats.caRef", ""),
    ("rules[].to[].index.opensearch.auth.bearer.tokenRef", ""),
    ("rules[].to[].index.opensearch.auth.basic.usernameRef", ""),
    ("rules[].to[].index.opensearch.auth.basic.passwordRef", ""),
    ("rules[].to[].index.opensearch.auth.apiKey.keyRef", ""),
    ("rules[].to[].index.opensearch.tls.caRef", ""),
    ("rules[].to[].http.auth.hmac.keyRef", ""),
];

const TO: &str = "/rules/0/to/0";

fn merged(mut one: Value, other: Value) -> Value {
    if let (Some(one), Value::Object(other)) = (one.as_object_mut(), other) {
        one.extend(other);
    }
    one
}

/// A route of the case's workspace to one destination.
pub fn to(mut destination: Value) -> Value {
    destination["name"] = json!("there");
    json!({
        "connectionRef": {"name": "file360"},
        "from": {"workspaces": {"names": ["CASE"], "path": "/Inbox/**"}},
        "rules": [{"name": "all", "to": [destination]}],
        "unmatched": {"ignore": {}},
    })
}

/// A call that shows what expressions see.
pub fn http(at: &Addresses, more: Value) -> Value {
    let template = "{'workspace': workspace.name, 'path': file.path, 'metadata': file.metadata, 'event': event.type}";
    let target = json!({"url": format!("{}/CASE", at.http), "headers": {"X-Step": "file.name"}, "template": template});
    to(json!({"http": merged(target, more)}))
}

fn bare_http(at: &Addresses, more: Value) -> Value {
    let target = json!({"url": format!("{}/CASE", at.http), "headers": {"X-Step": "file.name"}});
    to(json!({"http": merged(target, more)}))
}

/// An S3 bucket.
pub fn s3(at: &Addresses) -> Value {
    json!({"s3": {"endpoint": at.s3, "region": "eu-central-1", "bucket": "archive",
        "accessKeyIdRef": {"name": "s3", "key": "id"}, "secretAccessKeyRef": {"name": "s3", "key": "secret"}}})
}

fn sftp(at: &Addresses) -> Value {
    json!({"sftp": {"host": "127.0.0.1", "port": at.sftp_port, "username": at.sftp_user, "privateKeyRef": {"name": "sftp", "key": "key"},
        "hostKeys": [at.sftp_host_key], "root": at.sftp_roots[0]}})
}

fn store(store: Value) -> Value {
    let mut destination = json!({"key": "'CASE/' + file.name"});
    destination["objectStore"] = store;
    to(destination)
}

/// A search index, with more fields of `opensearch`.
pub fn index(at: &Addresses, more: Value) -> Value {
    let target = merged(json!({"url": at.search[0], "index": "CASE"}), more);
    to(json!({"index": {"opensearch": target, "properties": ["name"]}}))
}

fn nats(at: &Addresses, more: Value) -> Value {
    to(json!({"broker": {"nats": merged(json!({"url": at.nats, "subject": "'s.CASE.x'"}), more)}}))
}

fn publish(more: Value) -> Value {
    to(json!({"file360": merged(json!({"workspaceRef": {"name": "target"}, "path": "'/CASE'"}), more)}))
}

fn share(more: Value) -> Value {
    publish(
        json!({"share": merged(json!({"audience": "Members", "recipients": "['CASE-' + file.name + '@a.example']"}), more)}),
    )
}

/// Objects of a folder.
fn objects(at: &Addresses, more: Value) -> Value {
    let mut spec = http(at, json!({}));
    let from = json!({"fs": {"folder": "one"}, "prefix": "CASE/a/", "every": "100ms", "settle": "0s"});
    spec["from"] = json!({"objectStore": merged(from, more)});
    spec
}

fn ingest(at: &Addresses) -> Value {
    let mut spec = http(at, json!({}));
    spec["from"] = json!({"http": {"path": "CASE-a", "hmacRef": {"name": "sender-CASE"}, "inbox": {"workspaceRef": {"name": "CASE"}, "path": "/Inbox"}}});
    spec
}

fn set(mut spec: Value, pointer: &str, value: Value) -> Value {
    let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
    spec.pointer_mut(parent).expect("a parent")[name] = value;
    spec
}

fn case(field: &'static str, base: Value, pointer: impl Into<String>, set: Value, changed: Value) -> Case {
    let (pointer, patience) = (pointer.into(), Duration::ZERO);
    Case { field, base, pointer, set, changed, required: false, arrive: Arrive::Upload, patience }
}

impl Case {
    fn required(self) -> Self {
        Self { required: true, ..self }
    }

    fn arrive(self, arrive: Arrive) -> Self {
        Self { arrive, ..self }
    }

    /// One of the outcomes is that nothing happens, or that the file waits.
    fn or_nothing(self) -> Self {
        Self { patience: Duration::from_secs(5), ..self }
    }

    /// The same, where the other outcome takes seconds.
    fn or_waits(self) -> Self {
        Self { patience: Duration::from_secs(12), ..self }
    }
}

/// A spec in which `field` is this reference.
pub fn with_reference(at: &Addresses, field: &str, reference: &Value) -> Value {
    let good = json!({"name": "credential", "key": "good"});
    let secure = at.http.replace("http://", "https://");
    let (path, name) = field.rsplit_once('.').expect("a path");
    match path {
        "from.http" => set(ingest(at), "/from/http/hmacRef", reference.clone()),
        "rules[].to[].file360.share" => share(json!({name: reference})),
        "rules[].to[].http.tls" => http(at, json!({"url": format!("{secure}/CASE"), "tls": {name: reference}})),
        "rules[].to[].index.opensearch.tls" => {
            index(at, json!({"url": at.search[0].replace("http://", "https://"), "tls": {name: reference}}))
        }
        "rules[].to[].objectStore.s3" if name == "caRef" => {
            let secure = at.s3.replace("http://", "https://");
            store(set(set(s3(at), "/s3/endpoint", json!(secure)), "/s3/caRef", reference.clone()))
        }
        "rules[].to[].objectStore.s3" => store(set(s3(at), &format!("/s3/{name}"), reference.clone())),
        "rules[].to[].objectStore.sftp" => {
            let mut spec = sftp(at);
            spec["sftp"].as_object_mut().expect("a map").remove("privateKeyRef");
            store(set(spec, &format!("/sftp/{name}"), reference.clone()))
        }
        "rules[].to[].broker.nats" => nats(at, json!({"url": at.nats.replace("nats://", "tls://"), name: reference})),
        "rules[].to[].broker.nats.auth" => {
            let mut auth = json!({name: reference});
            match name {
                "usernameRef" => auth["passwordRef"] = good,
                "passwordRef" => auth["usernameRef"] = good,
                _ => {}
            }
            nats(at, json!({"auth": auth}))
        }
        _ => {
            let (kind, way) = path.rsplit_once('.').expect("a way to authenticate");
            let mut auth = json!({name: reference});
            match (way, name) {
                ("basic", "usernameRef") => auth["passwordRef"] = good,
                ("basic", _) => auth["usernameRef"] = good,
                ("apiKey", _) => auth["header"] = json!("X-A"),
                ("oauth2", "clientIdRef") => auth["clientSecretRef"] = good,
                ("oauth2", _) => auth["clientIdRef"] = good,
                _ => {}
            }
            if way == "oauth2" {
                auth["tokenUrl"] = json!(format!("{}/token", at.http));
            }
            let auth = json!({"auth": {way: auth}});
            if kind.contains("index") { index(at, auth) } else { http(at, auth) }
        }
    }
}

/// All cases.
pub fn cases(at: &Addresses) -> Vec<Case> {
    [sources(at), rules(at), delivery(at), targets(at), places(at), publications(), operation(at)]
        .into_iter()
        .flatten()
        .collect()
}

fn sources(at: &Addresses) -> Vec<Case> {
    let from = |workspaces: Value| set(http(at, json!({})), "/from/workspaces", workspaces);
    let of_case = |more: Value| {
        let of_case = json!({"key": "case", "operator": "In", "values": ["CASE"]});
        let expressions = if more.is_null() { json!([of_case]) } else { json!([of_case, more]) };
        from(json!({"selector": {"matchExpressions": expressions}, "path": "/Inbox/**"}))
    };
    let second = "/from/workspaces/selector/matchExpressions/1";
    let objects = |more: Value| objects(at, more);
    let inbox = |workspace: &str, path: &str| json!({"workspaceRef": {"name": workspace}, "path": path});
    vec![
        case(
            "from.workspaces.names",
            from(json!({"path": "/Inbox/**"})),
            "/from/workspaces/names",
            json!(["CASE"]),
            json!(["CASEb"]),
        )
        .required(),
        case(
            "from.workspaces.ids",
            from(json!({"path": "/Inbox/**"})),
            "/from/workspaces/ids",
            json!([at.ids[0]]),
            json!([at.ids[1]]),
        )
        .required(),
        case(
            "from.workspaces.path",
            from(json!({"names": ["CASE"]})),
            "/from/workspaces/path",
            json!("/Inbox/**"),
            json!("/Other/*"),
        ),
        case(
            "from.workspaces.events",
            http(at, json!({})),
            "/from/workspaces/events",
            json!(["MetadataChanged"]),
            json!(["Uploaded", "MetadataChanged"]),
        )
        .arrive(Arrive::Label),
        case(
            "from.workspaces.selector.matchLabels",
            of_case(Value::Null),
            "/from/workspaces/selector/matchLabels",
            json!({"team": "a"}),
            json!({"team": "b"}),
        ),
        case(
            "from.workspaces.selector.matchExpressions[].key",
            of_case(json!({"operator": "Exists"})),
            format!("{second}/key"),
            json!("team"),
            json!("nowhere"),
        )
        .required()
        .or_nothing(),
        case(
            "from.workspaces.selector.matchExpressions[].operator",
            of_case(json!({"key": "team", "values": ["a"]})),
            format!("{second}/operator"),
            json!("In"),
            json!("NotIn"),
        )
        .required(),
        case(
            "from.workspaces.selector.matchExpressions[].values",
            of_case(json!({"key": "team", "operator": "In"})),
            format!("{second}/values"),
            json!(["a"]),
            json!(["a", "b"]),
        )
        .required(),
        case("from.objectStore.prefix", objects(json!({})), "/from/objectStore/prefix", json!("CASE/a/"), json!("CASE/b/"))
            .required()
            .arrive(Arrive::Objects),
        case(
            "from.objectStore.settle",
            without(objects(json!({})), "settle"),
            "/from/objectStore/settle",
            json!("0s"),
            json!("1h"),
        )
        .arrive(Arrive::Objects)
        .or_nothing(),
        case(
            "from.objectStore.every",
            without(objects(json!({})), "every"),
            "/from/objectStore/every",
            json!("100ms"),
            json!("1h"),
        )
        .arrive(Arrive::Objects)
        .or_nothing(),
        case(
            "from.objectStore.metadata.sidecar",
            objects(json!({"metadata": {}})),
            "/from/objectStore/metadata/sidecar",
            json!("{key}.json"),
            json!("{stem}.meta"),
        )
        .arrive(Arrive::Objects),
        case(
            "from.objectStore.metadata.fromKey",
            objects(json!({"metadata": {}})),
            "/from/objectStore/metadata/fromKey",
            json!("CASE/(?P<first>[ab])/"),
            json!("CASE/(?P<second>[ab])/"),
        )
        .arrive(Arrive::Objects),
        case("from.http.path", ingest(at), "/from/http/path", json!("CASE-a"), json!("CASE-c"))
            .required()
            .arrive(Arrive::Push)
            .or_nothing(),
        case(
            "from.http.inbox.workspaceRef.name",
            ingest(at),
            "/from/http/inbox",
            inbox("CASE", "/Inbox"),
            inbox("CASEb", "/Inbox"),
        )
        .required()
        .arrive(Arrive::Push),
        case("from.http.inbox.path", ingest(at), "/from/http/inbox", inbox("CASE", "/Inbox"), inbox("CASE", "/Other"))
            .required()
            .arrive(Arrive::Push),
        case("from.http.maxSize", ingest(at), "/from/http/maxSize", json!("1Ki"), json!("1Mi"))
            .arrive(Arrive::Push)
            .or_nothing(),
    ]
}

fn without(mut spec: Value, field: &str) -> Value {
    spec["from"]["objectStore"].as_object_mut().expect("a map").remove(field);
    spec
}

fn rules(at: &Addresses) -> Vec<Case> {
    let tested = |more: Value| {
        let mut spec = http(at, json!({}));
        spec["rules"][0]["when"] = json!("file.size < 5000");
        spec["rules"][0]["set"] = json!({"k": "'v'"});
        spec["tests"] = json!([merged(json!({"name": "t", "given": {}, "expectRule": "all"}), more)]);
        spec
    };
    let event = || bare_http(at, json!({}));
    vec![
        case("rules[].name", event(), "/rules/0/name", json!("one"), json!("two")).required(),
        case("rules[].to[].name", event(), format!("{TO}/name"), json!("one"), json!("two")).required(),
        case("rules[].when", http(at, json!({})), "/rules/0/when", json!("file.size > 5000"), json!("file.size < 5000"))
            .or_nothing(),
        case("rules[].set", http(at, json!({})), "/rules/0/set", json!({"a": "'1'"}), json!({"a": "'2'"})),
        case(
            "unmatched.moveTo",
            set(set(http(at, json!({})), "/rules/0/when", json!("false")), "/unmatched", json!({})),
            "/unmatched/moveTo",
            json!("/U1"),
            json!("/U2"),
        )
        .required()
        .or_nothing(),
        case("tests[].name", tested(json!({"expectRule": "unmatched"})), "/tests/0/name", json!("one"), json!("two"))
            .required(),
        case(
            "tests[].given",
            tested(json!({})),
            "/tests/0/given",
            json!({"file": {"size": 1}}),
            json!({"file": {"size": 9_000}}),
        )
        .required(),
        case("tests[].expectRule", tested(json!({})), "/tests/0/expectRule", json!("all"), json!("unmatched")).required(),
        case("tests[].expectSet", tested(json!({})), "/tests/0/expectSet", json!({"k": "w"}), json!({"k": "v"})),
    ]
}

fn delivery(at: &Addresses) -> Vec<Case> {
    let to = |how: &str, delivery: Value| {
        let url = format!("{}/CASE/{how}", at.http);
        set(http(at, json!({"url": url})), "/delivery", delivery)
    };
    vec![
        case("delivery.retries", to("conflict", json!({})), "/delivery/retries", json!(0), json!(50)).or_nothing(),
        case(
            "delivery.backoff.initial",
            to("once", json!({"backoff": {}})),
            "/delivery/backoff/initial",
            json!("30m"),
            json!("50ms"),
        )
        .or_waits(),
        case(
            "delivery.backoff.max",
            to("once", json!({"backoff": {"initial": "30m"}})),
            "/delivery/backoff/max",
            json!("50ms"),
            json!("20m"),
        )
        .or_waits(),
        case(
            "delivery.deadLetter.moveTo",
            to("reject", json!({})),
            "/delivery/deadLetter",
            json!({"moveTo": "/F1"}),
            json!({"moveTo": "/F2"}),
        ),
    ]
}

fn targets(at: &Addresses) -> Vec<Case> {
    let url = |path: &str| json!(format!("{}/CASE/{path}", at.http));
    let good = || json!({"name": "credential", "key": "good"});
    let field = |name: &str| format!("{TO}/http/{name}");
    let content = |more: Value| set(bare_http(at, more), &format!("{TO}/send"), json!("Content"));
    let form = |more: Value| content(json!({"template": "{'a': 1}", "multipart": merged(json!({"file": "file"}), more)}));
    let oauth2 = |more: Value| {
        let oauth2 = json!({"tokenUrl": url("token"), "clientIdRef": good(), "clientSecretRef": good()});
        http(at, json!({"auth": {"oauth2": merged(oauth2, more)}}))
    };
    let more = |name: &str| format!("{TO}/http/auth/oauth2/{name}");
    let plain = || http(at, json!({}));
    let step = |more: Value| merged(json!({"X-Step": "file.name"}), more);
    vec![
        case("rules[].to[].http.url", plain(), field("url"), url("a"), url("b")).required(),
        case("rules[].to[].http.method", plain(), field("method"), json!("PUT"), json!("PATCH")),
        case("rules[].to[].http.path", plain(), field("path"), json!(["'a'", "file.size"]), json!(["'b'"])),
        case("rules[].to[].http.query", plain(), field("query"), json!({"q": "'1'"}), json!({"q": "'2'"})),
        case(
            "rules[].to[].http.headers",
            plain(),
            field("headers"),
            step(json!({"X-A": "'1'"})),
            step(json!({"X-A": "'2'"})),
        )
        .required(),
        case("rules[].to[].http.body", plain(), field("body"), json!("CloudEvent"), json!("Template")).or_nothing(),
        case(
            "rules[].to[].http.template",
            bare_http(at, json!({})),
            field("template"),
            json!("{'a': 1}"),
            json!("{'b': 1}"),
        ),
        case(
            "rules[].to[].http.multipart.file",
            form(json!({"json": "meta"})),
            field("multipart/file"),
            json!("one"),
            json!("two"),
        )
        .required(),
        case("rules[].to[].http.multipart.json", form(json!({})), field("multipart/json"), json!("one"), json!("two")),
        case(
            "rules[].to[].http.timeout",
            http(at, json!({"url": url("silent")})),
            field("timeout"),
            json!("300ms"),
            json!("20s"),
        )
        .or_nothing(),
        case(
            "rules[].to[].http.success",
            http(at, json!({"url": url("reject")})),
            field("success"),
            json!(["422"]),
            json!(["200-299"]),
        ),
        case(
            "rules[].to[].http.auth.apiKey.header",
            http(at, json!({"auth": {"apiKey": {"keyRef": good()}}})),
            field("auth/apiKey/header"),
            json!("X-A"),
            json!("X-B"),
        )
        .required(),
        case(
            "rules[].to[].http.auth.mtls.secretName",
            plain(),
            field("auth"),
            json!({"mtls": {"secretName": "one"}}),
            json!({"bearer": {"tokenRef": good()}}),
        )
        .or_nothing(),
        case("rules[].to[].http.auth.oauth2.tokenUrl", oauth2(json!({})), more("tokenUrl"), url("1/token"), url("2/token"))
            .required(),
        case("rules[].to[].http.auth.oauth2.scopes", oauth2(json!({})), more("scopes"), json!(["a"]), json!(["b"])),
        case(
            "rules[].to[].http.auth.oauth2.parameters",
            oauth2(json!({})),
            more("parameters"),
            json!({"audience": "a"}),
            json!({"audience": "b"}),
        ),
        case(
            "rules[].to[].http.auth.oauth2.clientAuthentication",
            oauth2(json!({})),
            more("clientAuthentication"),
            json!("Body"),
            json!("Basic"),
        ),
        case("rules[].to[].send", bare_http(at, json!({})), format!("{TO}/send"), json!("Content"), json!("Reference")),
        case(
            "rules[].to[].referenceFor",
            set(bare_http(at, json!({"template": "{'a': 1}"})), &format!("{TO}/send"), json!("Reference")),
            format!("{TO}/referenceFor"),
            json!("45m"),
            json!("30m"),
        ),
        case(
            "rules[].to[].writeBack",
            plain(),
            format!("{TO}/writeBack"),
            json!({"one": "response.status"}),
            json!({"two": "response.body.id"}),
        ),
    ]
}

fn places(at: &Addresses) -> Vec<Case> {
    let s3_field = |name: &str| format!("{TO}/objectStore/s3/{name}");
    let sftp_field = |name: &str| format!("{TO}/objectStore/sftp/{name}");
    let nobody = format!("http://127.0.0.1:{}", at.nobody);
    let nats_field = |name: &str| format!("{TO}/broker/nats/{name}");
    let search = |name: &str| format!("{TO}/index/opensearch/{name}");
    let other_key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHVKuV0DBQFNVDtbgTRXTWN9sY9dGJ1KVYyOrLxNyIlM";
    let mut more = vec![
        case(
            "rules[].to[].objectStore.fs.folder",
            store(json!({"fs": {}})),
            format!("{TO}/objectStore/fs/folder"),
            json!("one"),
            json!("two"),
        )
        .required(),
        case(
            "rules[].to[].key",
            store(json!({"fs": {"folder": "one"}})),
            format!("{TO}/key"),
            json!("'CASE/x/' + file.name"),
            json!("'CASE/y/' + file.name"),
        )
        .required(),
        case("rules[].to[].objectStore.s3.endpoint", store(s3(at)), s3_field("endpoint"), json!(at.s3), json!(nobody))
            .required(),
        case(
            "rules[].to[].objectStore.s3.region",
            store(s3(at)),
            s3_field("region"),
            json!("eu-central-1"),
            json!("us-east-1"),
        )
        .required(),
        case("rules[].to[].objectStore.s3.bucket", store(s3(at)), s3_field("bucket"), json!("archive"), json!("nowhere"))
            .required(),
        case(
            "rules[].to[].objectStore.sftp.host",
            store(sftp(at)),
            sftp_field("host"),
            json!("127.0.0.1"),
            json!("localhost"),
        )
        .required(),
        case(
            "rules[].to[].objectStore.sftp.port",
            store(sftp(at)),
            sftp_field("port"),
            json!(at.sftp_port),
            json!(at.nobody),
        )
        .required(),
        case(
            "rules[].to[].objectStore.sftp.username",
            store(sftp(at)),
            sftp_field("username"),
            json!(at.sftp_user),
            json!("nobody-else"),
        )
        .required(),
        case(
            "rules[].to[].objectStore.sftp.hostKeys",
            store(sftp(at)),
            sftp_field("hostKeys"),
            json!([at.sftp_host_key]),
            json!([other_key]),
        )
        .required(),
        case(
            "rules[].to[].objectStore.sftp.root",
            store(sftp(at)),
            sftp_field("root"),
            json!(at.sftp_roots[0]),
            json!(at.sftp_roots[1]),
        )
        .required(),
        case(
            "rules[].to[].broker.nats.url",
            nats(at, json!({})),
            nats_field("url"),
            json!(at.nats),
            json!(format!("nats://127.0.0.1:{}", at.nobody)),
        )
        .required(),
        case(
            "rules[].to[].broker.nats.subject",
            nats(at, json!({})),
            nats_field("subject"),
            json!("'s.CASE.1'"),
            json!("'s.CASE.2'"),
        )
        .required(),
        case(
            "rules[].to[].index.opensearch.url",
            index(at, json!({})),
            search("url"),
            json!(at.search[0]),
            json!(at.search[1]),
        )
        .required(),
        case("rules[].to[].index.opensearch.index", index(at, json!({})), search("index"), json!("CASE"), json!("CASE-2"))
            .required(),
        case(
            "rules[].to[].index.properties",
            index(at, json!({})),
            format!("{TO}/index/properties"),
            json!(["name"]),
            json!(["name", "size"]),
        )
        .required(),
        case("rules[].to[].index.acl", index(at, json!({})), format!("{TO}/index/acl"), json!("Omit"), json!("Mirror")),
        case(
            "rules[].to[].index.deletes",
            index(at, json!({})),
            format!("{TO}/index/deletes"),
            json!("Keep"),
            json!("Propagate"),
        )
        .arrive(Arrive::Delete),
        case(
            "rules[].to[].index.opensearch.auth.mtls.secretName",
            index(at, json!({"url": at.search[0].replace("http://", "https://"), "auth": {"mtls": {}}})),
            search("auth/mtls/secretName"),
            json!("ghost-one"),
            json!("ghost-two"),
        )
        .required(),
    ];
    // What is refused shows in what waits; nothing else comes.
    for case in &mut more {
        if case.patience.is_zero() {
            case.patience = Duration::from_secs(4);
        }
    }
    more
}

fn publications() -> Vec<Case> {
    let field = |name: &str| format!("{TO}/file360/{name}");
    let guests = || publish(json!({"share": {"audience": "Guests"}}));
    let bare = || to(json!({"file360": {"workspaceRef": {}, "path": "'/CASE'"}}));
    let taken = publish(json!({"path": "'/CASE/' + file.name", "fileName": "'same.txt'"}));
    vec![
        case(
            "rules[].to[].file360.workspaceRef.name",
            bare(),
            field("workspaceRef/name"),
            json!("target"),
            json!("target-2"),
        )
        .required(),
        case(
            "rules[].to[].file360.workspaceRef.nameFrom",
            bare(),
            field("workspaceRef/nameFrom"),
            json!("'target'"),
            json!("'target-' + string(file.version + 1)"),
        )
        .required(),
        case("rules[].to[].file360.path", publish(json!({})), field("path"), json!("'/CASE/x'"), json!("'/CASE/y'"))
            .required(),
        case(
            "rules[].to[].file360.fileName",
            publish(json!({})),
            field("fileName"),
            json!("'1-' + file.name"),
            json!("'2-' + file.name"),
        ),
        case("rules[].to[].file360.onConflict", taken, field("onConflict"), json!("Rename"), json!("Fail"))
            .arrive(Arrive::Taken),
        case(
            "rules[].to[].file360.metadata",
            publish(json!({})),
            field("metadata"),
            json!({"a": "'1'"}),
            json!({"a": "'2'"}),
        ),
        case(
            "rules[].to[].file360.share.audience",
            share(json!({})),
            field("share/audience"),
            json!("Company"),
            json!("Anyone"),
        )
        .required(),
        case(
            "rules[].to[].file360.share.recipients",
            guests(),
            field("share/recipients"),
            json!("['a@a.example']"),
            json!("['b@a.example']"),
        )
        .required(),
        case(
            "rules[].to[].file360.share.expiresAfter",
            share(json!({})),
            field("share/expiresAfter"),
            json!("P3D"),
            json!("P5D"),
        ),
        case("rules[].to[].file360.share.maxDownloads", share(json!({})), field("share/maxDownloads"), json!(3), json!(5)),
        case("rules[].to[].file360.share.notify", share(json!({})), field("share/notify"), json!(true), json!(false)),
        case(
            "rules[].to[].file360.share.locale",
            share(json!({"notify": true})),
            field("share/locale"),
            json!("de"),
            json!("en"),
        ),
    ]
}

fn operation(at: &Addresses) -> Vec<Case> {
    let plain = || http(at, json!({}));
    let with = |field: &str, value: Value| set(plain(), &format!("/{field}"), value);
    vec![
        case("mode", plain(), "/mode", json!("DryRun"), json!("Apply")),
        case("lookback", with("mode", json!("DryRun")), "/lookback", json!("P1D"), json!("P3D")),
        case("suspend", plain(), "/suspend", json!(true), json!(false)),
        case("suspendReason", with("suspend", json!(true)), "/suspendReason", json!("one"), json!("two")),
        case(
            "suspendUntil",
            with("suspend", json!(true)),
            "/suspendUntil",
            json!("2020-01-01T00:00:00Z"),
            json!("2033-01-01T00:00:00Z"),
        ),
    ]
}
