//! The syntax of a field line, and which fields are dropped.

use super::byte_class::{COLON, NAME_CLASS, is_value};
use super::error::HeadError;
use super::field::Field;
use super::head::NameRules;

/// Parses one line that ends (without CRLF) at the end of `buf`. `None` if the field is dropped.
pub(crate) fn parse_line(buf: &[u8], start: usize, rules: NameRules) -> Result<Option<Field>, HeadError> {
    let line = &buf[start..];
    let (mut seen, mut name_len, mut end) = (0, 0, 0);
    for &byte in line {
        let class = NAME_CLASS[usize::from(byte)];
        if class >= COLON {
            end = class;
            break;
        }
        seen |= class;
        name_len += 1;
    }
    // The name ends in something else, or there is no colon.
    if end != COLON || name_len == 0 {
        let folded = name_len == 0 && matches!(line.first(), Some(b' ' | b'\t'));
        return Err(if folded { HeadError::ObsoleteFold } else { HeadError::InvalidFieldName });
    }
    let name = &line[..name_len];

    let mut value_from = name_len + 1;
    while matches!(line.get(value_from), Some(b' ' | b'\t')) {
        value_from += 1;
    }
    let mut value_to = line.len();
    while value_to > value_from && matches!(line[value_to - 1], b' ' | b'\t') {
        value_to -= 1;
    }
    if !is_value(&line[value_from..value_to]) {
        return Err(HeadError::InvalidFieldValue);
    }

    let Some(known) = rules.admit(name, seen)? else {
        return Ok(None);
    };
    let Ok(short_name_len) = u16::try_from(name_len) else {
        return Err(HeadError::FieldTooLong);
    };
    let gap = &line[name_len + 1..value_from];
    let verbatim = value_to == line.len() && matches!(gap, [] | [b' ']);
    Ok(Some(Field {
        start: start as u32,
        value_start: (start + value_from) as u32,
        value_len: (value_to - value_from) as u32,
        name_len: short_name_len,
        known,
        verbatim,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use fairway_model::KnownField;

    #[test]
    fn values_are_trimmed_and_only_plain_lines_are_verbatim() {
        for (line, value, verbatim) in [
            ("A: b", "b", true),
            ("A:b", "b", true),
            ("A:", "", true),
            ("A: ", "", true),
            ("A:  b", "b", false),
            ("A:\tb", "b", false),
            ("A: b ", "b", false),
            ("A: b\tc", "b\tc", true),
            ("A:   ", "", false),
        ] {
            let field = parse_line(line.as_bytes(), 0, NameRules::Plain).unwrap().unwrap();
            assert_eq!(field.value(line.as_bytes()), value.as_bytes(), "{line:?}");
            assert_eq!(field.verbatim_line().is_some(), verbatim, "{line:?}");
        }
    }

    #[test]
    fn names_with_odd_bytes_follow_the_rules() {
        let keep_underscores = NameRules::Underscores;
        let parse = |line: &str, rules| parse_line(line.as_bytes(), 0, rules).map(|field| field.map(|f| f.known()));
        assert_eq!(parse("a_b: 1", NameRules::Plain), Ok(None));
        assert_eq!(parse("a_b: 1", keep_underscores), Ok(Some(KnownField::Other)));
        assert_eq!(parse("a.b: 1", keep_underscores), Ok(None));
        assert_eq!(parse("a.b: 1", NameRules::Tokens), Ok(Some(KnownField::Other)));
        assert_eq!(parse("a(b: 1", NameRules::Plain), Ok(None));
        assert_eq!(parse("a(b: 1", NameRules::Tokens), Err(HeadError::InvalidFieldName));
        assert_eq!(parse("X_Forwarded_Proto: https", keep_underscores), Ok(Some(KnownField::XForwardedProto)));
        assert_eq!(parse("X.Forwarded.Proto: https", NameRules::Tokens), Ok(Some(KnownField::XForwardedProto)));
        assert_eq!(parse("Content_Length: 5", keep_underscores), Ok(None));
        assert_eq!(parse("Transfer_Encoding: chunked", NameRules::Tokens), Ok(None));
        assert_eq!(parse("Content_Type: x", keep_underscores), Ok(Some(KnownField::Other)));
    }
}
