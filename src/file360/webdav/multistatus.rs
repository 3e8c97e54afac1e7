//! What a server says about collections and files (RFC 4918, `multistatus`). Pure; the text is hostile.
//!
//! Read are names, kinds, sizes, tags and times; the rest is passed over. There are no document types and no entities but XML's own five
//! and character references, so nothing expands; depth, entries and the length of each text are bounded.

use jiff::Timestamp;
use quick_xml::events::Event;
use quick_xml::name::{Namespace, ResolveResult};
use quick_xml::reader::NsReader;
use url::Url;

use super::place::Place;
use crate::error::{Error, Kind, Result, clean};

/// Elements within each other.
const MAX_DEPTH: usize = 32;
/// Entries of one listing.
pub const MAX_ENTRIES: usize = 50_000;
/// Longest text of one element, in bytes.
const MAX_TEXT: usize = 8192;
const DAV: &str = "DAV:";

/// A collection or a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it is.
    pub place: Place,
    /// Collection or file.
    pub is_collection: bool,
    /// Bytes of a file.
    pub size: Option<u64>,
    /// The server's entity tag.
    pub etag: Option<String>,
    /// Media type.
    pub mime_type: Option<String>,
    /// When it was made; the server need not know.
    pub created: Option<Timestamp>,
    /// When it was changed.
    pub modified: Option<Timestamp>,
}

/// What was asked for, and what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The place that was asked for.
    pub own: Entry,
    /// What is directly in it, when that was asked for, too.
    pub entries: Vec<Entry>,
    /// How many more there are that cannot be handled: their names, or the server tells nothing about them.
    pub unnamed: usize,
}

/// Reads the answer to a question about `asked`.
pub fn read(body: &[u8], asked: &Place, endpoint: &Url) -> Result<Listing> {
    let text = std::str::from_utf8(body).map_err(|_| malformed("it is not UTF-8"))?;
    let mut reading = Reading::default();
    let mut reader = NsReader::from_str(text.trim_start_matches('\u{feff}'));
    loop {
        let (namespace, event) = reader.read_resolved_event().map_err(|error| malformed(&error.to_string()))?;
        let is_dav = matches!(namespace, ResolveResult::Bound(Namespace(DAV)));
        match event {
            Event::Start(start) => reading.opens(is_dav, start.local_name().as_ref())?,
            Event::Empty(start) => {
                reading.opens(is_dav, start.local_name().as_ref())?;
                reading.closes()?;
            }
            Event::End(_) => reading.closes()?,
            Event::Text(text) => reading.says(&text.xml10_content())?,
            Event::CData(text) => reading.says(&text.xml10_content())?,
            Event::GeneralRef(reference) => reading.says(&character(&reference.xml10_content())?)?,
            Event::DocType(_) => return Err(malformed("it has a document type")),
            Event::Eof => break,
            Event::Decl(_) | Event::Comment(_) | Event::PI(_) => {}
        }
    }
    if !reading.is_complete {
        return Err(malformed("it breaks off"));
    }
    arrange(reading.responses, asked, endpoint)
}

/// Sorts what was read: the place that was asked for, and what is directly in it. Anything else is refused.
fn arrange(responses: Vec<Response>, asked: &Place, endpoint: &Url) -> Result<Listing> {
    let (mut own, mut entries, mut unnamed) = (None, Vec::new(), 0);
    for response in responses {
        let presence = response.presence();
        if presence == Presence::Gone {
            continue;
        }
        let place = Place::of_href(response.href.trim(), endpoint)?;
        let Some(place) = place.filter(|_| presence == Presence::There) else {
            unnamed += 1;
            continue;
        };
        let is_own = place == *asked;
        if !is_own && place.parent().as_ref() != Some(asked) {
            return Err(malformed(&format!("it speaks of {}, which is not what was asked for", clean(&response.href, 120))));
        }
        let entry = response.entry(place);
        if is_own {
            own = Some(entry);
        } else {
            entries.push(entry);
        }
    }
    entries.sort_by(|one, other| one.place.cmp(&other.place));
    if entries.windows(2).any(|pair| pair[0].place == pair[1].place) {
        return Err(malformed("it names something twice"));
    }
    let own = own.ok_or_else(|| malformed("it does not say what was asked for"))?;
    Ok(Listing { own, entries, unnamed })
}

fn malformed(why: &str) -> Error {
    Error::new(Kind::Malformed, format!("the answer to PROPFIND cannot be used: {}", clean(why, 200)))
}

/// The character that a reference stands for.
fn character(name: &str) -> Result<String> {
    let known = match name {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => {
            let number = name.strip_prefix('#').and_then(|digits| match digits.strip_prefix(['x', 'X']) {
                Some(digits) => u32::from_str_radix(digits, 16).ok(),
                None => digits.parse().ok(),
            });
            number.and_then(char::from_u32)
        }
    };
    known.map(String::from).ok_or_else(|| malformed("it has an entity that XML does not define"))
}

/// One `response` as it stands there.
#[derive(Clone, Debug, Default)]
struct Response {
    href: String,
    status: Option<String>,
    found: Properties,
    /// The `propstat` that is being read.
    current: Properties,
    current_status: String,
}

#[derive(Clone, Debug, Default)]
struct Properties {
    is_collection: bool,
    size: Option<u64>,
    etag: Option<String>,
    mime_type: Option<String>,
    created: Option<Timestamp>,
    modified: Option<Timestamp>,
}

impl Response {
    /// What it says about whether something is there.
    fn presence(&self) -> Presence {
        match self.status.as_deref().map(code) {
            None => Presence::There,
            Some(Some("200")) => Presence::There,
            Some(Some("404" | "410")) => Presence::Gone,
            // Such as 403: it is there, and must not be taken for absent (C5).
            Some(_) => Presence::Untold,
        }
    }

    fn entry(self, place: Place) -> Entry {
        let Properties { is_collection, size, etag, mime_type, created, modified } = self.found;
        Entry { place, is_collection, size, etag, mime_type, created, modified }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Presence {
    There,
    Gone,
    Untold,
}

/// The code of a status line.
fn code(line: &str) -> Option<&str> {
    line.split_whitespace().nth(1)
}

#[derive(Default)]
struct Reading {
    /// Names of the open elements; empty for those of other namespaces.
    open: Vec<String>,
    text: String,
    responses: Vec<Response>,
    is_complete: bool,
}

impl Reading {
    fn opens(&mut self, is_dav: bool, name: &str) -> Result<()> {
        if self.is_complete || (self.open.is_empty() && !(is_dav && name == "multistatus")) {
            return Err(malformed("it is no multistatus"));
        }
        if self.open.len() == MAX_DEPTH {
            return Err(malformed(&format!("it has more than {MAX_DEPTH} elements within each other")));
        }
        self.open.push(if is_dav { name.to_owned() } else { String::new() });
        self.text.clear();
        match self.path().as_slice() {
            ["response"] => {
                if self.responses.len() == MAX_ENTRIES {
                    return Err(malformed(&format!("it has more than {MAX_ENTRIES} entries")));
                }
                self.responses.push(Response::default());
            }
            ["response", "propstat"] => {
                if let Some(response) = self.responses.last_mut() {
                    (response.current, response.current_status) = Default::default();
                }
            }
            ["response", "propstat", "prop", "resourcetype", "collection"] => {
                if let Some(response) = self.responses.last_mut() {
                    response.current.is_collection = true;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The open elements below the root.
    fn path(&self) -> Vec<&str> {
        self.open.iter().skip(1).map(String::as_str).collect()
    }

    fn says(&mut self, text: &str) -> Result<()> {
        if self.text.len() + text.len() > MAX_TEXT {
            return Err(malformed(&format!("it has a text of more than {MAX_TEXT} bytes")));
        }
        self.text.push_str(text);
        Ok(())
    }

    fn closes(&mut self) -> Result<()> {
        let text = std::mem::take(&mut self.text);
        let text = text.trim();
        let path = self.open.iter().skip(1).map(String::as_str).collect::<Vec<_>>();
        if let Some(response) = self.responses.last_mut() {
            match path.as_slice() {
                ["response", "href"] => text.clone_into(&mut response.href),
                ["response", "status"] => response.status = Some(text.to_owned()),
                ["response", "propstat", "status"] => text.clone_into(&mut response.current_status),
                ["response", "propstat", "prop", name] => response.current.take(name, text),
                // What the server does not find is in a `propstat` of its own.
                ["response", "propstat"] if code(&response.current_status) == Some("200") => {
                    response.found = std::mem::take(&mut response.current);
                }
                _ => {}
            }
        }
        if self.open.pop().is_none() {
            return Err(malformed("it ends more than it begins"));
        }
        self.is_complete = self.open.is_empty();
        Ok(())
    }
}

impl Properties {
    fn take(&mut self, name: &str, text: &str) {
        let given = || Some(text.to_owned()).filter(|text| !text.is_empty());
        match name {
            "getcontentlength" => self.size = text.parse().ok(),
            "getetag" => {
                self.etag = given().filter(|tag| tag.len() <= 256 && tag.bytes().all(|byte| (0x21..0x7f).contains(&byte)));
            }
            "getcontenttype" => self.mime_type = given().map(|text| clean(&text, 255)),
            "creationdate" => self.created = text.parse().ok(),
            "getlastmodified" => self.modified = jiff::fmt::rfc2822::parse(text).ok().map(|time| time.timestamp()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read_of(asked: &Place, body: &str) -> Result<Listing> {
        read(body.as_bytes(), asked, &Url::parse("https://dav.example/base").unwrap())
    }

    fn workspace() -> Place {
        Place::of_workspace_id("ws").unwrap()
    }

    /// An answer about `/base/ws` and these responses.
    fn answer(responses: &str) -> String {
        format!(
            "<?xml version=\"1.0\"?><D:multistatus xmlns:D=\"DAV:\">\
             <D:response><D:href>/base/ws/</D:href><D:propstat><D:prop><D:resourcetype><D:collection/></D:resourcetype></D:prop>\
             <D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response>{responses}</D:multistatus>"
        )
    }

    fn file(href: &str) -> String {
        format!(
            "<D:response><D:href>{href}</D:href><D:propstat><D:prop><D:resourcetype/><D:getetag>\"1\"</D:getetag>\
             <D:getcontentlength>7</D:getcontentlength><D:getlastmodified>Mon, 23 Nov 2026 14:53:44 GMT</D:getlastmodified></D:prop>\
             <D:status>HTTP/1.1 200 OK</D:status></D:propstat><D:propstat><D:prop><D:creationdate/><D:getcontentlength/></D:prop>\
             <D:status>HTTP/1.1 404 Not Found</D:status></D:propstat></D:response>"
        )
    }

    #[track_caller]
    fn refused(body: &str, why: &str) {
        let error = read_of(&workspace(), body).unwrap_err();
        assert_eq!(error.kind, Kind::Malformed);
        assert!(error.to_string().contains(why), "{error}");
    }

    #[test]
    fn a_collection_and_what_is_in_it_is_read_whatever_the_prefixes_are() {
        let listing = read_of(&workspace(), &answer(&file("/base/ws/a%20&amp;%20b.txt"))).unwrap();
        assert!(listing.own.is_collection);
        let entry = &listing.entries[0];
        assert_eq!((entry.place.path().as_str(), entry.is_collection, entry.size), ("/a & b.txt", false, Some(7)));
        assert_eq!((entry.etag.as_deref(), entry.created), (Some("\"1\""), None));
        assert_eq!(entry.modified.unwrap().to_string(), "2026-11-23T14:53:44Z");
        let bare = "<multistatus xmlns='DAV:' xmlns:x='urn:x'><response><href>https://dav.example/base/ws</href><propstat>\
                    <prop><x:getetag>no</x:getetag><resourcetype><collection/></resourcetype></prop><status>HTTP/1.1 200 OK</status>\
                    </propstat></response></multistatus>";
        assert_eq!(read_of(&workspace(), bare).unwrap().own.etag, None, "of another namespace");
    }

    #[test]
    fn t3_entity_bombs_document_types_and_deep_or_endless_answers_are_refused() {
        refused("<!DOCTYPE x [<!ENTITY a \"aaaa\"><!ENTITY b \"&a;&a;\">]><multistatus xmlns='DAV:'/>", "document type");
        refused(&answer(&file("/base/ws/&xxe;")), "entity");
        refused(&answer(&"<D:x>".repeat(40)), "within each other");
        refused(&answer(&format!("<D:x>{}</D:x>", "a".repeat(MAX_TEXT + 1))), "text of more than");
        refused(&answer(&"<D:response/>".repeat(MAX_ENTRIES)), "entries");
        let whole = answer(&file("/base/ws/a"));
        refused(&whole[..whole.len() - 5], "");
        refused(&answer("").replace("D:multistatus", "D:other"), "no multistatus");
        refused("", "breaks off");
        refused(&format!("{}{}", answer(""), answer("")), "no multistatus");
    }

    #[test]
    fn t3_an_answer_that_speaks_of_other_places_is_refused_as_a_whole() {
        for href in
            ["/base/ws/a/b", "/base/other", "/base/", "/etc/passwd", "https://evil.example/base/ws/a", "/base/ws/../../x"]
        {
            refused(&answer(&file(href)), "");
        }
        refused(&answer(&file("/base/ws/a").repeat(2)), "twice");
        let nothing = "<D:multistatus xmlns:D=\"DAV:\"></D:multistatus>";
        refused(nothing, "does not say what was asked for");
    }

    #[test]
    fn a_name_that_cannot_be_handled_is_counted_and_what_is_gone_is_not() {
        let gone = "<D:response><D:href>/base/ws/gone</D:href><D:status>HTTP/1.1 404 Not Found</D:status></D:response>";
        let odd = file("/base/ws/a%0d%0ab");
        let listing = read_of(&workspace(), &answer(&format!("{gone}{odd}"))).unwrap();
        assert_eq!((listing.entries.len(), listing.unnamed), (0, 1));
        let hidden = gone.replace("404 Not Found", "403 Forbidden");
        assert_eq!(read_of(&workspace(), &answer(&hidden)).unwrap().unnamed, 1, "c5: what is not told is not absent");
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panicking(text in ".{0,200}", at in 0usize..600) {
            let _ = read_of(&workspace(), &text);
            let whole = answer(&file("/base/ws/a"));
            if let (Some(start), Some(end)) = (whole.get(..at), whole.get(at..)) {
                let _ = read_of(&workspace(), &format!("{start}{text}{end}"));
            }
        }
    }
}
