//! Verdicts on the names that ingress-nginx knows, and hints for names that it doesn't.

use serde::Serialize;

/// How far a name of ingress-nginx works in Fairway.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// Works in the same way.
    Same,
    /// Works, with a stated difference.
    Differs(&'static str),
    /// Will work, but doesn't yet: the reason, and the effect meanwhile.
    NotYet(&'static str),
    /// Will never work.
    Refused {
        /// The reason.
        reason: &'static str,
        /// What to use instead.
        instead: &'static str,
    },
    /// Has no effect, and nothing is lost.
    Harmless(&'static str),
}

impl Verdict {
    /// The verdict as one or two words.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Differs(_) => "differs",
            Self::NotYet(_) => "not yet",
            Self::Refused { .. } => "refused",
            Self::Harmless(_) => "harmless",
        }
    }

    /// The note besides the label, without markup; empty for [`Same`](Self::Same).
    pub fn note(self) -> String {
        plain(&self.markdown())
    }

    /// The note with its links, for pages of `docs/`.
    pub(crate) fn markdown(self) -> String {
        match self {
            Self::Same => String::new(),
            Self::Differs(text) | Self::NotYet(text) | Self::Harmless(text) => text.to_owned(),
            Self::Refused { reason, instead } => format!("{reason}. Instead: {instead}"),
        }
    }

    /// The loss, from nothing to everything, for finding the worst of several.
    pub const fn loss(self) -> u8 {
        match self {
            Self::Same => 0,
            Self::Harmless(_) => 1,
            Self::Differs(_) => 2,
            Self::NotYet(_) => 3,
            Self::Refused { .. } => 4,
        }
    }

    /// Whether the name is read and has its effect.
    pub const fn works(self) -> bool {
        matches!(self, Self::Same | Self::Differs(_))
    }
}

/// A text of `docs/` with the files of its links instead of links: `docs/FILE`, after what the link says unless that is the file's name.
pub fn plain(text: &str) -> String {
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some((before, label, target, after)) = next_link(rest) {
        let file = target.split('#').next().unwrap_or_default();
        out.push_str(before);
        if !target.contains("://") && file.strip_suffix(".md") == Some(label) {
            out.push_str(&format!("docs/{file}"));
        } else if target.contains("://") {
            out.push_str(&format!("{label} ({target})"));
        } else {
            out.push_str(&format!("{label} (docs/{file})"));
        }
        rest = after;
    }
    out + rest
}

/// The first `[label](target)`: the text before it, both parts, the text after it.
fn next_link(text: &str) -> Option<(&str, &str, &str, &str)> {
    let (label, rest) = text.split_once("](")?;
    let (before, label) = label.rsplit_once('[')?;
    let (target, after) = rest.split_once(')')?;
    Some((before, label, target, after))
}

/// The text as a sentence, with a capital and a full stop.
pub(crate) fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    let stop = if text.ends_with('.') { "" } else { "." };
    format!("{first}{}{stop}", chars.as_str())
}

/// The known name that is nearest to `name`, if one is near enough.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // No known name is longer than 45 bytes; a longer one is no typo, and would cost quadratic time.
    if name.len() > 64 {
        return None;
    }
    let limit = 1 + name.len() / 6;
    known
        .into_iter()
        .filter(|candidate| candidate.len().abs_diff(name.len()) <= limit)
        .map(|candidate| (edit_distance(name, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Whether two texts differ by at most two typos, or by the order of their parts between dots.
pub(crate) fn looks_like(text: &str, meant: &str) -> bool {
    fn parts(text: &str) -> Vec<&str> {
        let mut parts: Vec<&str> = text.split('.').collect();
        parts.sort_unstable();
        parts
    }
    text.len().abs_diff(meant.len()) <= 2 && (edit_distance(text, meant) <= 2 || parts(text) == parts(meant))
}

/// Whether two texts have the same words, in any order and separated by any blanks and commas.
pub(crate) fn same_words(one: &str, other: &str) -> bool {
    fn words(text: &str) -> Vec<&str> {
        let mut words: Vec<&str> = text.split([' ', ',', '\t']).filter(|word| !word.is_empty()).collect();
        words.sort_unstable();
        words
    }
    one == other || words(one) == words(other)
}

/// The smallest number of insertions, deletions and replacements of bytes that turn one text into the other.
fn edit_distance(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.bytes().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_and_orders_are_seen_through() {
        let ours = "nginx.ingress.kubernetes.io";
        for near in ["ngnix.ingress.kubernetes.io", "nginx.ingres.kubernetes.io", "ingress.nginx.kubernetes.io"] {
            assert!(looks_like(near, ours), "{near}");
        }
        for other in ["traefik.ingress.kubernetes.io", "kubernetes.io", "nginx.org", "haproxy.ingress.kubernetes.io"] {
            assert!(!looks_like(other, ours), "{other}");
        }
        assert!(same_words("TLSv1.3 TLSv1.2", "TLSv1.2  TLSv1.3") && !same_words("TLSv1.3", "TLSv1.2 TLSv1.3"));
    }

    #[test]
    fn notes_for_terminals_name_files_instead_of_links() {
        for (text, expected) in [
            ("see [snippets](snippets.md): a", "see docs/snippets.md: a"),
            ("evenly or [by demand](sizing.md#a-b); [x] (y)", "evenly or by demand (docs/sizing.md); [x] (y)"),
            ("[site](https://a.example/b)", "site (https://a.example/b)"),
            ("no link", "no link"),
        ] {
            assert_eq!(plain(text), expected);
        }
    }

    #[test]
    fn edit_distance_counts_single_edits() {
        assert_eq!(edit_distance("kitten", "sitting"), 3);
        assert_eq!(edit_distance("", "abc"), 3);
        assert_eq!(edit_distance("same", "same"), 0);
    }

    #[test]
    fn only_near_names_are_suggested() {
        let known = ["rewrite-target", "ssl-redirect", "use-regex"];
        assert_eq!(nearest("rewrite-targt", known), Some("rewrite-target"));
        assert_eq!(nearest("ssl_redirect", known), Some("ssl-redirect"));
        assert_eq!(nearest("something-else", known), None);
        assert_eq!(nearest(&"a".repeat(1 << 20), known), None);
    }
}
