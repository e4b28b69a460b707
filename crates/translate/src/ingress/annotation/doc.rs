//! The reference of annotations, from the table.

use std::fmt::Write;

use super::{CLASS, DEFAULT_PREFIX, GROUPS, Meanwhile, OBSERVE, OWN_PREFIX, OnInvalid, Scope, Spec};
use crate::verdict::sentence;

/// `docs/annotations.md`.
pub fn annotations_markdown() -> String {
    let mut out = format!(
        "# Annotations\n\nGenerated from the table in `crates/translate/src/ingress/annotation/`; `UPDATE_DOCS=1 cargo test -p \
         fairway-translate --test tables` writes it.\n\n\
         You want to know how Fairway treats an annotation. All names here have the prefix `{DEFAULT_PREFIX}/`, which \
         `--annotations-prefix` changes, except for those that begin with `{OWN_PREFIX}`. An empty value is the same as none, except for `auth-url`, where it denies. Fairway also reads `{CLASS}` if \
         `spec.ingressClassName` is absent; its value must equal `--ingress-class`.\n\n\
         Verdicts: *same* as ingress-nginx; *differs* as stated; *not yet* supported; *refused* for good; *harmless*, without \
         effect or loss. Risk is compared with the ConfigMap key `annotations-risk-level`: an Ingress with an annotation above it is not \
         loaded.\n\n\
         If a version of an Ingress is not loaded, the last one that could be loaded stays. If there is none, and an annotation restricts access \
         or may do so (address lists, authentication, client certificates, limits, snippets), its hosts and paths answer 503, so that no wider \
         path takes their requests. If none does, the Ingress is not served, as in ingress-nginx.\n"
    );
    for group in &GROUPS {
        let _ = write!(out, "\n## {}\n", group.title);
        for spec in group.specs {
            entry(&mut out, spec);
        }
    }
    out
}

fn entry(out: &mut String, spec: &Spec) {
    let _ = write!(out, "\n### `{}`\n\n{}\n\n", spec.name, spec.doc.trim());
    if !spec.aliases.is_empty() {
        let _ = writeln!(
            out,
            "- Older name: `{}`, read only where the new one is absent or empty",
            spec.aliases.join("`, `")
        );
    }
    let scope = match spec.scope {
        Scope::Ingress if spec.name == OBSERVE => "the Ingress, or the route of the Gateway API",
        Scope::Ingress => "the Ingress",
        Scope::Location => "each path",
    };
    let _ = writeln!(out, "- Value: {}\n- Acts on: {scope}. Risk: {}", spec.syntax, spec.risk.as_str());
    if spec.verdict.works() {
        let consequence = match spec.on_invalid {
            OnInvalid::Default if spec.name == OBSERVE => "ignored",
            OnInvalid::Default if spec.name.starts_with(OWN_PREFIX) => "the default holds",
            OnInvalid::Default => "the ConfigMap's value or the default holds",
            // See `Reading::invalid`.
            OnInvalid::Drop if spec.name == "proxy-ssl-verify" => {
                "all paths of the Ingress answer 503 if `proxy-ssl-secret` is set too, else it is ignored"
            }
            OnInvalid::Drop => "ignored",
            OnInvalid::Deny => "all paths of the Ingress answer 503",
            OnInvalid::Reject => "this version of the Ingress is not loaded",
        };
        let _ = writeln!(out, "- Invalid value: {consequence}");
    }
    let note = spec.verdict.markdown();
    let _ = match note.as_str() {
        "" => writeln!(out, "- Verdict: **{}**", spec.verdict.label()),
        note => writeln!(out, "- Verdict: **{}**. {}", spec.verdict.label(), sentence(note)),
    };
    let meanwhile = match spec.meanwhile {
        Meanwhile::Serve => return,
        Meanwhile::Deny(denial) => format!("{} answer 503", super::denied(denial)),
        Meanwhile::DenySnippet(denial) => {
            format!(
                "with `allow-snippet-annotations` {} answer 503, since it may hold a restriction; else dropped",
                super::denied(denial)
            )
        }
        Meanwhile::Reject => "the Ingress is not loaded".to_owned(),
    };
    let _ = writeln!(out, "- Where it is set: {meanwhile}");
}
