//! The matches of rules of HTTPRoutes and GRPCRoutes: what each takes, and at least as much where a part can't be used.

use std::fmt;

use fairway_model::{ArgumentMatch, Conditions, FieldMatch, PathMatch, PathRegex, ValueMatch};

use super::api::{GRPCRouteMatch, HTTPRouteMatch, ValueMatcher};

/// The part of a match that can't be used, and why.
pub(super) type BadPart = (&'static str, String);

/// What a match takes, as far as it can be used. A part that can't be used is replaced by one that takes at least as much, and the rule
/// answers these requests itself: they fall to no rule that may restrict less. Where nothing is known of the path, it is the prefix `/`:
/// the longer prefixes of other rules keep what is theirs.
#[derive(Debug)]
pub(super) struct ReadMatch {
    pub(super) path: PathMatch,
    pub(super) conditions: Conditions,
    /// The first part that can't be used.
    pub(super) bad: Option<BadPart>,
}

pub(super) fn http_match(one: &HTTPRouteMatch) -> ReadMatch {
    let mut read = ReadMatch::everything();
    let path = one.path.as_ref();
    let text = path.and_then(|path| path.value.as_deref()).unwrap_or("/");
    read.path = match path.and_then(|path| path.r#type.as_deref()).unwrap_or("PathPrefix") {
        "Exact" => read.path_or_more("path.value", PathMatch::exact(text), text),
        // A slash at the end says nothing: `/abc/` takes `/abc` too.
        "PathPrefix" => {
            let prefix = Some(text.trim_end_matches('/')).filter(|it| !it.is_empty()).unwrap_or("/");
            read.path_or_more("path.value", PathMatch::prefix(prefix), prefix)
        }
        // The whole path, in the case that it has.
        "RegularExpression" => {
            let pattern = PathMatch::regex(&format!("(?-i:(?:{text})$)"));
            read.path_or_more("path.value", pattern, literal_start(text))
        }
        other => {
            read.bad("path.type", format!("expected Exact, PathPrefix or RegularExpression, found {other}"));
            every_path()
        }
    };
    let arguments = read.values(&one.query_params, "queryParams", str::to_owned);
    read.conditions = Conditions {
        method: one.method.as_deref().map(Into::into),
        arguments: arguments
            .into_iter()
            .map(|(name, value)| ArgumentMatch { name: name.as_str().into(), value })
            .collect(),
        fields: read.fields(&one.headers),
        ..Conditions::default()
    };
    read
}

pub(super) fn grpc_match(one: &GRPCRouteMatch) -> ReadMatch {
    let mut read = ReadMatch::everything();
    let method = one.method.as_ref();
    let service = method.and_then(|method| method.service.as_deref()).filter(|text| !text.is_empty());
    let name = method.and_then(|method| method.method.as_deref()).filter(|text| !text.is_empty());
    let (path, start) = match (method.and_then(|method| method.r#type.as_deref()).unwrap_or("Exact"), service, name) {
        (_, None, None) => (Ok(every_path()), String::new()),
        ("Exact", Some(service), Some(name)) => (PathMatch::exact(&format!("/{service}/{name}")), String::new()),
        ("Exact", Some(service), None) => (PathMatch::prefix(&format!("/{service}")), String::new()),
        ("Exact", None, Some(name)) => {
            (PathMatch::regex(&format!("(?-i:/[^/]+/{}$)", PathRegex::escaped(name))), String::new())
        }
        ("RegularExpression", service, name) => {
            let (service, name) = (service.unwrap_or("[^/]+"), name.unwrap_or("[^/]+"));
            (PathMatch::regex(&format!("(?-i:/(?:{service})/(?:{name})$)")), format!("/{}", literal_start(service)))
        }
        (other, ..) => {
            read.bad("method.type", format!("expected Exact or RegularExpression, found {other}"));
            (Ok(every_path()), String::new())
        }
    };
    read.path = read.path_or_more("method", path, &start);
    read.conditions.fields = read.fields(&one.headers);
    read
}

/// What every text begins with that a regular expression matches, as far as that is seen without reading the expression, which may be
/// one for another engine.
fn literal_start(pattern: &str) -> &str {
    let pattern = pattern.strip_prefix('^').unwrap_or(pattern);
    let is_literal = |c: char| c.is_ascii_alphanumeric() || "/-_~%!@,;:=&".contains(c);
    let end = pattern.find(|c| !is_literal(c)).unwrap_or(pattern.len());
    // The last character may be optional, and another branch may begin differently.
    let start = &pattern[..end];
    match pattern[end..].chars().next() {
        None => start,
        Some(_) if may_branch(pattern) => "",
        Some('?' | '*' | '{') => start.char_indices().next_back().map_or("", |(last, _)| &start[..last]),
        Some(_) => start,
    }
}

/// Whether there may be branches outside of groups.
fn may_branch(pattern: &str) -> bool {
    // What looks like the end of a class or the begin of a group need not be one.
    if ["[]", "[^]", "(?#"].iter().any(|unclear| pattern.contains(unclear)) {
        return true;
    }
    let (mut depth, mut in_class, mut quoted) = (0u32, false, false);
    pattern.chars().any(|c| {
        if std::mem::take(&mut quoted) {
            // What stands between `\Q` and `\E` is text.
            return c == 'Q';
        }
        match c {
            '\\' => quoted = true,
            '[' => in_class = true,
            ']' => in_class = false,
            '(' if !in_class => depth += 1,
            ')' if !in_class => depth = depth.saturating_sub(1),
            '|' => return depth == 0 && !in_class,
            _ => {}
        }
        false
    })
}

fn every_path() -> PathMatch {
    PathMatch::Prefix("/".into())
}

impl ReadMatch {
    fn everything() -> Self {
        Self { path: every_path(), conditions: Conditions::default(), bad: None }
    }

    fn bad(&mut self, part: &'static str, message: String) {
        self.bad.get_or_insert((part, message));
    }

    /// The path, or where it can't be used all paths with this start.
    fn path_or_more<E: fmt::Display>(
        &mut self,
        part: &'static str,
        path: Result<PathMatch, E>,
        start: &str,
    ) -> PathMatch {
        path.unwrap_or_else(|error| {
            self.bad(part, error.to_string());
            // Patterns come before prefixes: one for every path would take the paths of all other routes of the host.
            match start {
                "" | "/" => every_path(),
                start => {
                    PathMatch::regex(&format!("(?-i:{})", PathRegex::escaped(start))).unwrap_or_else(|_| every_path())
                }
            }
        })
    }

    fn fields(&mut self, headers: &[ValueMatcher]) -> Vec<FieldMatch> {
        let mut fields = Vec::new();
        for (name, value) in self.values(headers, "headers", str::to_ascii_lowercase) {
            match name.as_str().try_into() {
                Ok(name) => fields.push(FieldMatch { name, value }),
                Err(_) => self.bad("headers", format!("{name:?} is no name of a field")),
            }
        }
        fields
    }

    /// Conditions on values; of several for one name the first counts. In the order of names: the order in which a user lists them says
    /// nothing.
    fn values(
        &mut self,
        all: &[ValueMatcher],
        field: &'static str,
        identity: impl Fn(&str) -> String,
    ) -> Vec<(String, ValueMatch)> {
        let (mut known, mut found) = (Vec::<String>::new(), Vec::new());
        for one in all {
            let name = identity(&one.name);
            if known.contains(&name) {
                continue;
            }
            known.push(name.clone());
            match one.r#type.as_deref().unwrap_or("Exact") {
                "Exact" => found.push((name, ValueMatch::Exact(one.value.as_str().into()))),
                "RegularExpression" => match one.value.parse() {
                    Ok(regex) => found.push((name, ValueMatch::Regex(regex))),
                    Err(_) => {
                        let message = format!("{:?} is no regular expression that runs in linear time", one.value);
                        self.bad(field, message);
                        // What it would match has at least the field or parameter.
                        found.extend("(?s).*".parse().ok().map(|any| (name, ValueMatch::Regex(any))));
                    }
                },
                other => self.bad(field, format!("type: expected Exact or RegularExpression, found {other}")),
            }
        }
        found.sort_by(|(one, _): &(String, _), (other, _)| one.cmp(other));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::literal_start;

    #[test]
    fn the_start_of_a_pattern_ends_where_it_may_vary() {
        for (pattern, start) in [
            ("/admin(?=/|$).*", "/admin"),
            ("/admin", "/admin"),
            ("/a(?!b)|/c", ""),
            ("/a[|](?=c)", "/a"),
            ("/a\\|b(?=c)", "/a"),
            ("/a\\Q(\\E|/b", ""),
            ("/a[](]|/b(?=c)", ""),
            ("^/admin(?=/)", "/admin"),
            ("/ab*(?=c)", "/a"),
            ("/ab?(?=c)", "/a"),
            ("/ab{0}(?=c)", "/a"),
            ("/ab+(?=c)", "/ab"),
            ("(?=a)", ""),
            ("*", ""),
            ("", ""),
        ] {
            assert_eq!(literal_start(pattern), start, "{pattern}");
        }
    }
}
