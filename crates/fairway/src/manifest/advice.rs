//! Advice about manifests that can't be read: how to write values of the wrong kind, and which files must be decrypted or rendered first.

use std::borrow::Cow;

use super::node::{Node, Value};

/// How SOPS writes an encrypted value.
const SOPS: &str = "ENC[AES256_GCM,";

/// The expected value in words. `expected` is the name that serde and the Kubernetes types use.
pub(super) fn expectation(expected: &str) -> Cow<'static, str> {
    Cow::Borrowed(match expected {
        "a sequence" => "a list",
        "a map" => "a mapping",
        "a string" => "a text",
        "a boolean" => "true or false",
        "a base64-encoded string" => "base64",
        "i8" | "i16" | "i32" | "i64" | "u8" | "u16" | "u32" | "u64" => "a whole number",
        "f32" | "f64" => "a number",
        "IntOrString" | "enum IntOrString" => "a number or a name",
        name if name.starts_with("struct ") => "a mapping",
        name if name.starts_with(|c: char| c.is_ascii_uppercase()) && !name.contains(' ') => "a mapping",
        other => return Cow::Owned(other.to_owned()),
    })
}

/// The range of a whole-number type; `None` for other types.
pub(super) fn range(expected: &str) -> Option<String> {
    fn of<T: std::fmt::Display>(least: T, most: T) -> Option<String> {
        Some(format!("{least} to {most}"))
    }
    match expected {
        "i8" => of(i8::MIN, i8::MAX),
        "i16" => of(i16::MIN, i16::MAX),
        "i32" => of(i32::MIN, i32::MAX),
        "i64" => of(i64::MIN, i64::MAX),
        "u8" => of(u8::MIN, u8::MAX),
        "u16" => of(u16::MIN, u16::MAX),
        "u32" => of(u32::MIN, u32::MAX),
        "u64" => of(u64::MIN, u64::MAX),
        _ => None,
    }
}

/// How to write the value that was probably meant: `key` is the last step of the field, `node` its value.
pub(super) fn correction(expected: &str, key: &str, node: &Node<'_>) -> Option<String> {
    let text = node.text().filter(|text| is_short(text));
    let number = text.is_some_and(|text| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()));
    let quoted = matches!(node.value, Value::Scalar { plain: false, .. });
    Some(match (expected, text) {
        ("ServiceBackendPort", Some(text)) if number => format!("{key}: {{number: {text}}}"),
        ("ServiceBackendPort", Some(text)) => format!("{key}: {{name: {text}}}"),
        ("ServiceBackendPort", None) => "port: {number: 80}".to_owned(),
        ("IngressServiceBackend", Some(text)) => format!("{key}: {{name: {text}, port: {{number: 80}}}}"),
        ("IngressBackend", Some(text)) => format!("{key}: {{service: {{name: {text}, port: {{number: 80}}}}}}"),
        ("i8" | "i16" | "i32" | "i64" | "u8" | "u16" | "u32" | "u64", Some(text)) if number && quoted => {
            format!("{key}: {text}, without quotes")
        }
        // A port name contains a letter.
        ("i32", Some(text)) if key == "number" && text.bytes().any(|byte| byte.is_ascii_alphabetic()) => {
            format!("name: {text}, if it is the name of a port")
        }
        ("a boolean", Some("true" | "false")) => format!("{key}: {}, without quotes", text.unwrap_or_default()),
        ("a sequence", Some(text)) if key.ends_with("Refs") => format!("{key}: [{{name: {text}}}]"),
        ("a sequence", Some(text)) => format!("{key}: [{text}]"),
        ("a sequence", None) if matches!(node.value, Value::Mapping(_)) => "- before each item".to_owned(),
        _ => return None,
    })
}

/// Points out a placeholder that should have been filled in before the manifest is applied.
pub(super) fn template(text: &str) -> Option<&'static str> {
    let filled_by_shell = |open: &str, close: char| {
        let mut rest = text;
        while let Some((_, tail)) = rest.split_once(open) {
            if let Some((name, _)) = tail.split_once(close)
                && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && !name.contains(char::is_whitespace)
            {
                return true;
            }
            rest = tail;
        }
        false
    };
    if text.contains("{{") {
        return Some(
            "it looks like a template: render it first, with helm template or the tool that it was written for",
        );
    }
    let placeholder = filled_by_shell("${", '}') || filled_by_shell("$(", ')');
    placeholder.then_some(
        "it looks like a template: fill in its variables first, with envsubst or the tool that it was written for",
    )
}

/// The field of an object's first value that SOPS encrypted; `None` if there is none.
pub(super) fn encrypted_by_sops(node: &Node<'_>) -> Option<(u32, String)> {
    fn search(node: &Node<'_>, field: &str) -> Option<(u32, String)> {
        match &node.value {
            Value::Scalar { text, .. } => text.starts_with(SOPS).then(|| (node.line, field.to_owned())),
            Value::Sequence(items) => {
                items.iter().enumerate().find_map(|(index, item)| search(item, &format!("{field}[{index}]")))
            }
            Value::Mapping(entries) => entries.iter().find_map(|entry| {
                let plain = entry.key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
                let dot = if field.is_empty() { "" } else { "." };
                let step = if plain { format!("{dot}{}", entry.key) } else { format!("[\"{}\"]", entry.key) };
                search(&entry.value, &format!("{field}{step}"))
            }),
        }
    }
    // SOPS keeps its metadata under its own key, so this check is cheap: it doesn't have to look at all values.
    node.get("sops").and_then(|_| search(node, ""))
}

/// What to do with a document that is encrypted as a whole.
pub(super) fn encrypted_text(text: &str) -> Option<&'static str> {
    let tools = [
        ("$ANSIBLE_VAULT;", "it looks encrypted by Ansible Vault: decrypt it first, with ansible-vault decrypt"),
        ("-----BEGIN AGE ENCRYPTED FILE-----", "it looks encrypted by age: decrypt it first, with age --decrypt"),
        ("-----BEGIN PGP MESSAGE-----", "it looks encrypted by GnuPG: decrypt it first, with gpg --decrypt"),
        (SOPS, "it looks encrypted by SOPS: decrypt it first, with sops decrypt"),
    ];
    tools.into_iter().find(|(start, _)| text.starts_with(start)).map(|(_, advice)| advice)
}

/// What to do with a file that is not text.
pub(super) fn encrypted_bytes(bytes: &[u8]) -> Option<&'static str> {
    let tools = [
        (&b"\0GITCRYPT\0"[..], "it looks encrypted by git-crypt: decrypt it first, with git-crypt unlock"),
        (b"age-encryption.org/", "it looks encrypted by age: decrypt it first, with age --decrypt"),
        (b"\x1f\x8b", "it looks compressed by gzip: unpack it first"),
    ];
    tools.into_iter().find(|(start, _)| bytes.starts_with(start)).map(|(_, advice)| advice)
}

/// Whether a text is short enough to quote within a line of advice.
fn is_short(text: &str) -> bool {
    text.len() <= 63 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_recognised_and_nothing_else() {
        for text in ["${NAME}", "a-$(ENV).example", "{{ .Values.host }}", "x{{- if a }}", "$1 ${BASE_DOMAIN}"] {
            assert!(template(text).is_some(), "{text}");
        }
        for text in ["", "$1", "/api(/|$)(.*)", "$host$request_uri", "${1}", "a.example", "$(( 1 + 1 ))", "${", "}${"] {
            assert!(template(text).is_none(), "{text}");
        }
    }

    #[test]
    fn encrypted_values_are_found_with_their_field() {
        let text = "data:\n  tls.key: ENC[AES256_GCM,data:x,type:str]\nsops: {mac: x}\n";
        let node = Node::parse(text).unwrap().unwrap();
        assert_eq!(encrypted_by_sops(&node), Some((2, "data[\"tls.key\"]".to_owned())));
        let node = Node::parse("data: {a: b}\nsops: {mac: x}\n").unwrap().unwrap();
        assert_eq!(encrypted_by_sops(&node), None);
    }
}
