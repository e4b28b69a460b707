//! The differences between two responses. A response is split into aspects, each a text; two responses differ in the aspects whose texts
//! differ. What varies between responses of the old address itself does not count.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use fairway_model::Scheme;

use super::address::Address;
use super::question::Question;
use super::response::{NoAnswer, Response};

/// Fields that always differ, or that say nothing about the content.
pub(super) const IGNORED: [&str; 13] = [
    "age",
    "alt-svc",
    "connection",
    // The body itself is compared.
    "content-length",
    "date",
    "keep-alive",
    // Compared separately, see `Aspect::Location`.
    "location",
    "proxy-connection",
    "server",
    "transfer-encoding",
    "via",
    "x-correlation-id",
    "x-request-id",
];

/// Bytes of each body shown from the first difference.
const EXCERPT: usize = 30;

/// A part of an answer.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Aspect {
    /// Whether there is a response.
    Answer,
    Status,
    Location,
    /// A response field, by its name in lower case.
    Field(String),
    Body,
}

/// A difference in one aspect. `None` where a response lacks the aspect.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Change {
    pub(super) aspect: Aspect,
    pub(super) old: Option<String>,
    pub(super) new: Option<String>,
}

/// The user's options on what to compare.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules {
    /// Compares only these fields, if there are any.
    pub(super) only: BTreeSet<String>,
    /// Fields to ignore; may include `body`.
    pub(super) ignored: BTreeSet<String>,
    /// Ignores nothing by default.
    pub(super) strict: bool,
}

impl Rules {
    fn compares(&self, field: &str) -> bool {
        let by_default = self.strict || !IGNORED.contains(&field);
        match self.only.is_empty() {
            _ if self.ignored.contains(field) => false,
            true => by_default,
            false => self.only.contains(field),
        }
    }
}

/// The differences between two outcomes of a request.
pub(super) fn differences(
    request: &Question,
    [old, new]: [&Result<Response, NoAnswer>; 2],
    addresses: [&Address; 2],
    rules: &Rules,
) -> Vec<Change> {
    let (old_answer, new_answer) = match (old, new) {
        (Err(_), Err(_)) => return Vec::new(),
        (Ok(old), Ok(new)) => (old, new),
        (old, new) => {
            let text = |outcome: &Result<Response, NoAnswer>| match outcome {
                Ok(answer) => answer.status.to_string(),
                Err(none) => none.to_string(),
            };
            return vec![Change { aspect: Aspect::Answer, old: Some(text(old)), new: Some(text(new)) }];
        }
    };
    let mut old = aspects(request, old_answer, addresses[0], rules);
    let mut new = aspects(request, new_answer, addresses[1], rules);
    if old_answer.status != new_answer.status {
        // All other differences follow from the status.
        let matters = |aspect: &Aspect| matches!(aspect, Aspect::Status | Aspect::Location);
        old.retain(|aspect, _| matters(aspect));
        new.retain(|aspect, _| matters(aspect));
    } else if !rules.strict && old_answer.is_built_in() && new_answer.is_built_in() {
        // Each program's built-in pages carry its own name.
        for aspect in [Aspect::Body, Aspect::Field("content-type".to_owned())] {
            old.remove(&aspect);
            new.remove(&aspect);
        }
    }
    let all: BTreeSet<_> = old.keys().chain(new.keys()).cloned().collect();
    let change = |aspect: Aspect| {
        let mut change = Change { old: old.get(&aspect).cloned(), new: new.get(&aspect).cloned(), aspect };
        if change.old == change.new {
            return None;
        }
        if change.aspect == Aspect::Body
            && let Some((at, parts)) = first_difference(&old_answer.body.start, &new_answer.body.start)
        {
            for (text, part) in [&mut change.old, &mut change.new].into_iter().zip(parts) {
                *text = text.take().map(|text| format!("{text}, from byte {at} {part:?}"));
            }
        }
        Some(change)
    };
    all.into_iter().filter_map(change).collect()
}

/// Where the beginnings of two bodies first differ, and an excerpt of each from there. `None` if either is not text there.
fn first_difference(old: &[u8], new: &[u8]) -> Option<(usize, [String; 2])> {
    let at = old.iter().zip(new).position(|(old, new)| old != new)?;
    let excerpt = |body: &[u8]| {
        let text = std::str::from_utf8(body.get(at..body.len().min(at + EXCERPT))?).ok()?;
        let end = text.find(['\r', '\n']).unwrap_or(text.len());
        text[..end].chars().all(|char| !char.is_control()).then(|| text[..end].to_owned())
    };
    Some((at, [excerpt(old)?, excerpt(new)?]))
}

/// Removes the changes in aspects that also vary between responses of the old address, unless only the new response lacks the aspect.
/// Returns the removed changes.
pub(super) fn steady(changes: &mut Vec<Change>, own: &[Change]) -> Vec<Change> {
    let unsteady = |change: &Change| {
        let itself = own.iter().find(|own| own.aspect == change.aspect);
        itself.is_some_and(|own| {
            let missing = |text: &Option<String>| text.as_deref().is_none_or(|text| text == "empty");
            let missing_only_now = !missing(&own.old) && !missing(&own.new) && missing(&change.new);
            let before_query =
                |text: &Option<String>| text.as_deref().and_then(|text| text.split('?').next().map(str::to_owned));
            let known = match change.aspect {
                // A status or an error counts unless the old address also returns it.
                Aspect::Status | Aspect::Answer => change.new == own.old || change.new == own.new,
                // The query of a login page's URL changes each time, but its path does not.
                Aspect::Location => {
                    [&own.old, &own.new].into_iter().any(|own| before_query(own) == before_query(&change.new))
                }
                Aspect::Field(_) | Aspect::Body => true,
            };
            !missing_only_now && known
        })
    };
    let (out, left) = std::mem::take(changes).into_iter().partition(unsteady);
    *changes = left;
    out
}

fn aspects(request: &Question, answer: &Response, address: &Address, rules: &Rules) -> BTreeMap<Aspect, String> {
    let mut all = BTreeMap::from([(Aspect::Status, answer.status.to_string())]);
    if let Some(location) = answer.field("location").filter(|_| !rules.ignored.contains("location")) {
        let location = if rules.strict { location } else { plain_location(&location, request, address) };
        all.insert(Aspect::Location, location);
    }
    let names: BTreeSet<_> = answer.fields.iter().map(|(name, _)| name.as_str()).collect();
    for name in names.into_iter().filter(|name| rules.compares(name) && *name != "location") {
        let value = match name {
            "set-cookie" if !rules.strict => cookies(answer),
            "vary" | "allow" | "access-control-allow-methods" | "access-control-allow-headers" if !rules.strict => {
                members(&answer.field(name).unwrap_or_default())
            }
            _ => answer.field(name).unwrap_or_default(),
        };
        all.insert(Aspect::Field(name.to_owned()), value);
    }
    let coded = answer.field("content-encoding").is_some_and(|coding| coding != "identity");
    if request.method != "HEAD" && !rules.ignored.contains("body") {
        // No two encoders produce the same bytes.
        let body = if coded && answer.body.length > 0 { "encoded".to_owned() } else { answer.body.to_string() };
        all.insert(Aspect::Body, body);
    }
    all
}

/// A location without the default ports, and without the port that the address itself has for the scheme: clients reach the same place.
fn plain_location(location: &str, request: &Question, address: &Address) -> String {
    let Some((scheme, rest)) = location.split_once("://") else { return location.to_owned() };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let (of_scheme, default) = match scheme {
        "http" => (Scheme::Http, 80),
        "https" => (Scheme::Https, 443),
        _ => return location.to_owned(),
    };
    let Some((name, port)) = authority.rsplit_once(':') else { return location.to_owned() };
    let Ok(port) = port.parse::<u16>() else { return location.to_owned() };
    // A port that the client sent in the host is the client's own.
    let own = address.port(of_scheme) == Some(port) && !request.host.ends_with(&format!(":{port}"));
    if port == default || own { format!("{scheme}://{name}{path}") } else { location.to_owned() }
}

/// Names and attributes of cookies. The values are random, or belong to a session.
fn cookies(answer: &Response) -> String {
    let mut all: Vec<_> = answer
        .fields
        .iter()
        .filter(|(name, _)| name == "set-cookie")
        .map(|(_, value)| {
            let (pair, attributes) = value.split_once(';').unwrap_or((value, ""));
            let name = pair.split('=').next().unwrap_or_default().trim();
            // The time follows from Max-Age or from the current time.
            let attributes = attributes.split(';').map(str::trim).filter(|part| !part.is_empty());
            let mut attributes: Vec<_> = attributes
                .map(|part| match part.split_once('=') {
                    Some((name, _)) if name.eq_ignore_ascii_case("expires") => "Expires".to_owned(),
                    _ => part.to_owned(),
                })
                .collect();
            attributes.sort_by_key(|part| part.to_ascii_lowercase());
            let attributes: String = attributes.iter().map(|part| format!("; {part}")).collect();
            format!("{name}=…{attributes}")
        })
        .collect();
    all.sort();
    all.join(", ")
}

/// The members of a list whose order is irrelevant.
fn members(list: &str) -> String {
    let members = list.split(',').map(str::trim).filter(|member| !member.is_empty());
    let mut members: Vec<_> = members.collect();
    members.sort_by_key(|member| member.to_ascii_lowercase());
    members.dedup_by(|one, other| one.eq_ignore_ascii_case(other));
    members.join(", ")
}

impl fmt::Display for Aspect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answer => f.write_str("answer"),
            Self::Status => f.write_str("status"),
            Self::Location => f.write_str("Location"),
            Self::Field(name) => write!(f, "field {name}"),
            Self::Body => f.write_str("body"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::response::BodyReader;
    use super::*;

    fn answer(status: u16, fields: &[(&str, &str)], body: &str) -> Result<Response, NoAnswer> {
        let mut reader = BodyReader::new(1 << 20);
        assert!(reader.take(body.as_bytes()));
        let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Ok(Response { status, fields, body: reader.finish(true) })
    }

    fn changes_by(old: &Result<Response, NoAnswer>, new: &Result<Response, NoAnswer>, rules: &Rules) -> Vec<Change> {
        let request = Question::new("GET", Scheme::Http, "a.example", "/");
        let addresses: [Address; 2] = ["192.0.2.1".parse().unwrap(), "127.0.0.1:8080,8443".parse().unwrap()];
        differences(&request, [old, new], [&addresses[0], &addresses[1]], rules)
    }

    fn changed(old: &Result<Response, NoAnswer>, new: &Result<Response, NoAnswer>) -> Vec<String> {
        changes_by(old, new, &Rules::default()).iter().map(|change| change.aspect.to_string()).collect()
    }

    #[test]
    fn what_differs_always_is_ignored() {
        let old = answer(200, &[("server", "nginx"), ("date", "a"), ("x-request-id", "1"), ("vary", "A, B")], "x");
        let new = answer(200, &[("date", "b"), ("vary", "b"), ("vary", "A"), ("connection", "close")], "x");
        assert_eq!(changed(&old, &new), ["field vary"], "the spelling of members is compared");
        let new = answer(200, &[("date", "b"), ("vary", "B"), ("vary", "A")], "x");
        assert!(changed(&old, &new).is_empty());
        let strict = Rules { strict: true, ..Rules::default() };
        assert_eq!(changes_by(&old, &new, &strict).len(), 4);
    }

    #[test]
    fn fields_and_bodies_are_compared() {
        let old = answer(200, &[("content-type", "a"), ("x-a", "1")], "x");
        assert_eq!(
            changed(&old, &answer(200, &[("content-type", "b")], "y")),
            ["field content-type", "field x-a", "body"]
        );
        assert_eq!(changed(&old, &answer(404, &[("content-type", "b")], "y")), ["status"], "the rest follows");
        let only = Rules { only: ["x-a".to_owned()].into(), ignored: ["body".to_owned()].into(), strict: false };
        let found = changes_by(&old, &answer(200, &[("content-type", "b"), ("x-a", "2")], "y"), &only);
        assert_eq!(
            found,
            [Change { aspect: Aspect::Field("x-a".into()), old: Some("1".into()), new: Some("2".into()) }]
        );
    }

    #[test]
    fn locations_are_compared_by_where_they_lead() {
        let to = |location: &str| answer(308, &[("location", location)], "");
        assert!(changed(&to("https://a.example/x"), &to("https://a.example:8443/x")).is_empty());
        assert!(changed(&to("https://a.example:443"), &to("https://a.example")).is_empty());
        assert_eq!(changed(&to("https://a.example/x"), &to("https://a.example/")), ["Location"]);
        assert_eq!(changed(&to("/x"), &to("https://a.example:9443/x")), ["Location"]);
    }

    #[test]
    fn built_in_pages_and_cookie_values_are_not_compared() {
        let page =
            |name: &str| format!("<html>\r\n<head><title>404 Not Found</title></head>\r\n<hr><center>{name}</center>");
        let old = answer(404, &[("content-type", "text/html")], &page("nginx/1.22.1"));
        assert!(changed(&old, &answer(404, &[("content-type", "text/html; charset=x")], &page("fairway"))).is_empty());
        assert_eq!(changed(&old, &answer(404, &[("content-type", "text/html")], "mine")), ["body"]);
        let cookie = |value: &str| answer(200, &[("set-cookie", value)], "");
        let old = cookie("route=17; Expires=Thu, 1 Jan; Path=/; HttpOnly");
        assert!(changed(&old, &cookie("route=abc; Path=/; Expires=Fri, 2 Jan; HttpOnly")).is_empty());
        assert_eq!(changed(&old, &cookie("route=17; Path=/; HttpOnly")), ["field set-cookie"]);
    }

    #[test]
    fn bodies_show_where_they_begin_to_differ() {
        let bodies = |old: &str, new: &str| {
            let found = changes_by(&answer(200, &[], old), &answer(200, &[], new), &Rules::default());
            [found[0].old.clone().unwrap(), found[0].new.clone().unwrap()]
        };
        let [old, new] = bodies("path /v1/x\nmore", "path /x\nmore");
        assert!(old.ends_with(", from byte 6 \"v1/x\"") && new.ends_with(", from byte 6 \"x\""), "{old} {new}");
        assert!(!bodies("a\u{1}b", "a\u{2}b")[0].contains("from byte"), "no text");
        assert!(!bodies("a", "ab")[0].contains("from byte"), "one ends");
        assert_eq!(bodies("", "ab")[0], "empty");
    }

    #[test]
    fn one_answer_without_the_other_differs() {
        let none = Err(NoAnswer::TimedOut);
        assert_eq!(changed(&answer(200, &[], ""), &none), ["answer"]);
        assert!(changed(&none, &Err(NoAnswer::Broken("x".into()))).is_empty());
    }

    #[test]
    fn what_changes_at_the_old_address_itself_is_no_difference() {
        let change = |aspect: Aspect, old: Option<&str>, new: Option<&str>| Change {
            aspect,
            old: old.map(str::to_owned),
            new: new.map(str::to_owned),
        };
        let field = || Aspect::Field("x".into());
        let own = [change(Aspect::Body, Some("1"), Some("2")), change(field(), Some("1"), Some("2"))];
        let mut found = vec![change(Aspect::Body, Some("1"), Some("3")), change(field(), Some("1"), None)];
        let out = steady(&mut found, &own);
        assert_eq!(out, [change(Aspect::Body, Some("1"), Some("3"))]);
        assert_eq!(found, [change(field(), Some("1"), None)], "the new address never sends the field");
        let own = [change(Aspect::Location, Some("https://login/?s=1"), Some("https://login/?s=2"))];
        let mut found = vec![change(Aspect::Location, Some("https://login/?s=1"), Some("https://login/?s=3"))];
        assert_eq!(steady(&mut found, &own).len(), 1);
        let mut found = vec![change(Aspect::Location, Some("https://login/?s=1"), Some("https://other/?s=3"))];
        assert!(steady(&mut found, &own).is_empty(), "another page");
        let own = [change(Aspect::Status, Some("200"), Some("503"))];
        let mut found = vec![change(Aspect::Status, Some("200"), Some("404"))];
        assert!(steady(&mut found, &own).is_empty(), "404 is neither of them");
    }
}
