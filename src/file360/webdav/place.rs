//! Where something is below the root, and the names, addresses and ids of that place. Pure.
//!
//! Names go to the server as they are, except what could leave the root, mislead a reader or not be held by some file system: that is
//! encoded reversibly, like names of files that routes deliver (R6). What the server names comes back through the same decoding; a name
//! that could lead out of the root is never followed.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use sha2::{Digest as _, Sha256};
use url::Url;

use crate::error::{Error, Kind, Result, clean};
use crate::file360::model::BusinessKey;
use crate::hex::hex;
use crate::outbound::object_store::names::{Key, MAX_SEGMENT, Rules, decode, is_addressable, is_reserved};

/// The collection in a workspace that is the operator's own.
pub const OWN: &str = ".file360";
/// Deepest place.
const MAX_DEPTH: usize = 64;
/// Longest address of a place, in bytes before it is written into a URL.
const MAX_LENGTH: usize = 4096;
/// What of a name stays as it is in a URL.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// Longest readable part of a workspace's directory.
const LONGEST_SLUG: usize = 60;

/// A place below the root: names as the server has them. The first is the workspace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place(Vec<String>);

impl Place {
    /// The root of the tenant: the endpoint's path.
    pub fn root() -> Self {
        Self(Vec::new())
    }

    /// The place `name` directly in this one; the name is the server's.
    pub fn child(&self, name: &str) -> Self {
        Self(self.0.iter().cloned().chain([name.to_owned()]).collect())
    }

    /// The place around this one; the root has none.
    pub fn parent(&self) -> Option<Self> {
        let (_, around) = self.0.split_last()?;
        Some(Self(around.to_vec()))
    }

    /// The workspace that this place is in; `None` for the root.
    pub fn workspace(&self) -> Option<Self> {
        self.0.first().map(|name| Self(vec![name.clone()]))
    }

    /// How many names lead here.
    pub fn depth(&self) -> usize {
        self.0.len()
    }

    /// Whether it is the collection of a workspace itself.
    pub fn is_workspace(&self) -> bool {
        self.depth() == 1
    }

    /// Whether it or a place around it is the operator's own.
    pub fn is_own(&self) -> bool {
        self.0.iter().any(|name| is_reserved(name))
    }

    /// The last name, for people; empty for the root.
    pub fn name(&self) -> String {
        self.0.last().map(|name| shown(name)).unwrap_or_default()
    }

    /// The path in the workspace, for people; `/` for the workspace itself.
    pub fn path(&self) -> String {
        match self.0.get(1..) {
            None | Some([]) => "/".to_owned(),
            Some(names) => names.iter().map(|name| format!("/{}", shown(name))).collect(),
        }
    }

    /// The part of a URL after the endpoint: `/a/b%20c`, and `/` at the end of a collection.
    pub fn address(&self, is_collection: bool) -> String {
        let names: String = self.0.iter().map(|name| format!("/{}", utf8_percent_encode(name, PLAIN))).collect();
        if is_collection || names.is_empty() { format!("{names}/") } else { names }
    }

    /// Opaque id of an item. It says where the item is, so a renamed one has another.
    pub fn id(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0.join("/"))
    }

    /// The place with that id, if it is one.
    pub fn of_id(id: &str) -> Option<Self> {
        if id.len() > MAX_LENGTH * 2 {
            return None;
        }
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(id).ok()?).ok()?;
        let place = Self(text.split('/').map(str::to_owned).collect());
        (place.is_followed() && !place.is_own()).then_some(place)
    }

    /// The workspace with that id, if it is one.
    pub fn of_workspace_id(id: &str) -> Option<Self> {
        let name = match id.strip_prefix('~') {
            Some(encoded) => String::from_utf8(URL_SAFE_NO_PAD.decode(encoded).ok()?).ok()?,
            None => id.to_owned(),
        };
        let place = Self(vec![name]);
        (place.is_followed() && !place.is_own()).then_some(place)
    }

    /// Opaque id of the workspace that this place is in.
    pub fn workspace_id(&self) -> String {
        let name = self.0.first().map(String::as_str).unwrap_or_default();
        let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        if is_plain { name.to_owned() } else { format!("~{}", URL_SAFE_NO_PAD.encode(name)) }
    }

    /// The workspace of a business key. The readable part is for people; the hash alone tells keys apart.
    pub fn of_key(key: &BusinessKey) -> Self {
        let mut hash = Sha256::new();
        hash.update(key.system.as_bytes());
        hash.update([0]);
        hash.update(key.key.as_bytes());
        let hash = hex(&hash.finalize()[..8]);
        // Of `clusterId/namespace/name`, the cluster says nothing to a reader.
        let readable = match (key.system.as_str(), key.key.split_once('/')) {
            ("k8s", Some((_, rest))) => rest.to_owned(),
            _ => format!("{}-{}", key.system, key.key),
        };
        let mut slug = String::new();
        for c in readable.chars() {
            match c.to_ascii_lowercase() {
                c @ ('a'..='z' | '0'..='9') => slug.push(c),
                _ if slug.ends_with('-') || slug.is_empty() => {}
                _ => slug.push('-'),
            }
        }
        slug.truncate(LONGEST_SLUG);
        let slug = slug.trim_end_matches('-');
        Self(vec![if slug.is_empty() { hash } else { format!("{slug}-{hash}") }])
    }

    /// The place at a path of this workspace. Absent segments and names that cannot be are refused.
    pub fn at_path(&self, path: &str) -> Result<Self> {
        let rest = path.strip_prefix('/').ok_or_else(|| illegal("a path starts with /"))?;
        let mut place = self.clone();
        for name in rest.split('/').filter(|_| !rest.is_empty()) {
            place = place.with_name(name)?;
        }
        Ok(place)
    }

    /// The place of a new item of this name in this one.
    pub fn with_name(&self, name: &str) -> Result<Self> {
        if name.is_empty()
            || matches!(name, "." | "..")
            || name.contains(['/', '\\', '\0'])
            || name.chars().any(char::is_control)
        {
            return Err(illegal(
                "a name has 1 to 255 bytes, no slash, backslash or control character, and is not `.` or `..`",
            ));
        }
        let key = Key::new(name, Rules::Portable).map_err(|why| illegal(&why.to_string()))?;
        let place = self.child(key.as_str());
        if place.is_followed() { Ok(place) } else { Err(illegal("the path is too long or too deep")) }
    }

    /// The place that the server means by `href`, which must be below the endpoint on the same host. `None`: it is there, but its
    /// name cannot be handled (control characters, too long, too deep).
    pub fn of_href(href: &str, endpoint: &Url) -> Result<Option<Self>> {
        let wrong =
            |why: &str| Error::new(Kind::Malformed, format!("the server names an address {why}: {}", clean(href, 120)));
        let encoded = match Url::parse(href) {
            Ok(url) if matches!(url.scheme(), "http" | "https") => {
                if url.host_str() != endpoint.host_str() {
                    return Err(wrong("of another host"));
                }
                // Not the parsed path: it has its dots resolved.
                let after = href.split_once("://").map_or("", |(_, rest)| rest);
                after.find('/').map_or("/", |at| &after[at..]).to_owned()
            }
            Ok(_) => return Err(wrong("that is no HTTP address")),
            Err(_) if href.starts_with('/') && !href.starts_with("//") => href.to_owned(),
            Err(_) => return Err(wrong("without a path")),
        };
        if encoded.contains(['?', '#']) || encoded.contains("//") {
            return Err(wrong("that is no plain path"));
        }
        let base = names_in(endpoint.path()).ok_or_else(|| wrong("that is not UTF-8"))?;
        let all = names_in(&encoded).ok_or_else(|| wrong("that is not UTF-8"))?;
        let below = all.strip_prefix(base.as_slice()).ok_or_else(|| wrong("outside the endpoint"))?;
        if below.iter().any(|name| !is_addressable(name) || name.contains('/')) {
            return Err(wrong("that leads out of the endpoint"));
        }
        let place = Self(below.to_vec());
        Ok((place.0.is_empty() || place.is_followed()).then_some(place))
    }

    /// Whether every name can be asked for without leaving the root.
    fn is_followed(&self) -> bool {
        let fits = |name: &String| {
            is_addressable(name) && !name.contains('/') && name.len() <= MAX_SEGMENT && !name.chars().any(char::is_control)
        };
        (1..=MAX_DEPTH).contains(&self.0.len())
            && self.0.iter().map(|name| name.len() + 1).sum::<usize>() <= MAX_LENGTH
            && self.0.iter().all(fits)
    }
}

/// The names in an encoded path; `None`: one is not UTF-8.
fn names_in(path: &str) -> Option<Vec<String>> {
    let names = path.split('/').filter(|name| !name.is_empty());
    names.map(|name| percent_decode_str(name).decode_utf8().ok().map(std::borrow::Cow::into_owned)).collect()
}

fn illegal(why: &str) -> Error {
    let mut error = Error::new(Kind::Rejected, format!("the name cannot be used: {why}"));
    error.code = "name-illegal".into();
    error
}

/// What an encoded name stands for. One that our encoding did not make stands for itself, so that no two places look the same.
fn shown(name: &str) -> String {
    let text = decode(name);
    if Key::new(&text, Rules::Portable).is_ok_and(|key| key.as_str() == name) { text } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn endpoint() -> Url {
        Url::parse("https://dav.example/remote/base%20dir/").unwrap()
    }

    fn key(system: &str, key: &str) -> BusinessKey {
        BusinessKey { system: system.into(), key: key.into() }
    }

    #[test]
    fn a_workspace_has_one_readable_directory_that_follows_from_its_key() {
        let names = |key: &BusinessKey| Place::of_key(key).workspace_id();
        let one = names(&key("k8s", "c1/legal/acme"));
        assert!(one.starts_with("legal-acme-") && one.len() == "legal-acme-".len() + 16, "{one}");
        assert_ne!(one, names(&key("k8s", "c2/legal/acme")), "another cluster's is another workspace");
        assert_ne!(names(&key("s4", "vendor/1")), names(&key("s4/vendor", "1")));
        let strange = names(&key("s4", &"ä/../..\u{202e}".repeat(40)));
        assert!(Place::of_workspace_id(&strange).is_some(), "{strange}");
        assert_eq!(Place::of_workspace_id(&one).unwrap(), Place::of_key(&key("k8s", "c1/legal/acme")));
    }

    #[test]
    fn r6_names_go_out_reversibly_and_never_out_of_the_workspace() {
        let ws = Place::of_workspace_id("ws").unwrap();
        let place = ws.at_path("/Verträge/100% a#?.txt").unwrap();
        assert_eq!(place.address(false), "/ws/Vertr%C3%A4ge/100%25%20a%23%253F.txt");
        assert_eq!(place.path(), "/Verträge/100% a#?.txt");
        assert_eq!(Place::of_id(&place.id()).unwrap(), place);
        for path in ["", "a", "/a/../b", "/..", "/a//b", "/a\\b", "/a\0", "/a\r\nb"] {
            assert!(ws.at_path(path).is_err(), "{path:?}");
        }
        let own = ws.at_path("/.file360/x").unwrap();
        assert!(!own.is_own(), "a name like the operator's own is encoded: {own:?}");
        assert_eq!(own.path(), "/.file360/x");
    }

    #[test]
    fn t3_an_address_that_leads_elsewhere_is_not_followed() {
        let place = |href: &str| Place::of_href(href, &endpoint());
        assert_eq!(place("/remote/base%20dir/ws/a%20b/").unwrap(), Some(Place(vec!["ws".into(), "a b".into()])));
        assert_eq!(place("https://dav.example/remote/base%20dir/ws").unwrap(), Some(Place(vec!["ws".into()])));
        assert_eq!(place("/remote/base%20dir/").unwrap(), Some(Place::root()));
        for odd in [format!("/remote/base%20dir/ws/{}", "x".repeat(300)), "/remote/base%20dir/ws/a%0d%0ab".to_owned()] {
            assert_eq!(place(&odd).unwrap(), None, "it stops no listing: {odd}");
        }
        for href in [
            "https://evil.example/remote/base%20dir/ws",
            "//evil.example/remote/base%20dir/ws",
            "file:///etc/passwd",
            "/remote/other/ws",
            "/remote/base%20dir/../../etc",
            "/remote/base%20dir/ws/%2e%2e/%2E%2E/x",
            "/remote/base%20dir/ws/a%2f..%2fb",
            "/remote/base%20dir/ws/a%00",
            "/remote/base%20dir/ws/%ff",
            "/remote/base%20dir//ws",
            "/remote/base%20dir/ws?x",
            "ws",
            "",
        ] {
            assert_eq!(place(href).unwrap_err().kind, Kind::Malformed, "{href:?}");
        }
    }

    #[test]
    fn ids_of_nothing_and_of_the_operators_own_files_are_no_items() {
        let encoded = |text: &str| URL_SAFE_NO_PAD.encode(text);
        for id in
            ["", "%", "nobody", &encoded(""), &encoded("ws/../x"), &encoded("ws/.file360/workspace.json"), &encoded("/ws")]
        {
            assert_eq!(Place::of_id(id), None, "{id:?}");
        }
        for id in ["", "..", "~", ".file360", &format!("~{}", encoded("a/b"))] {
            assert_eq!(Place::of_workspace_id(id), None, "{id:?}");
        }
    }

    proptest! {
        #[test]
        fn r6_every_path_that_is_taken_comes_back_and_stays_inside(path in "(/[^/]{1,20}){1,4}") {
            let ws = Place::of_workspace_id("ws").unwrap();
            if let Ok(place) = ws.at_path(&path) {
                prop_assert_eq!(place.workspace().unwrap(), ws);
                let url = format!("https://dav.example/remote/base%20dir{}", place.address(false));
                let parsed = Url::parse(&url).unwrap();
                prop_assert_eq!(parsed.as_str(), url.as_str(), "no dots are left to resolve");
                prop_assert_eq!(Place::of_href(&url, &endpoint()).unwrap(), Some(place));
            }
        }

        #[test]
        fn t3_no_address_is_followed_out_of_the_root(href in "(/remote/base%20dir)?(/|%2[fFeE]|\\.|ws|%00|\\?|[a-z]){0,12}") {
            if let Ok(Some(place)) = Place::of_href(&href, &endpoint()) {
                prop_assert!(place.address(true).starts_with('/'));
                let parsed = Url::parse(&format!("https://dav.example/remote/base%20dir{}", place.address(true))).unwrap();
                prop_assert!(parsed.path().starts_with("/remote/base%20dir/"));
            }
        }
    }
}
