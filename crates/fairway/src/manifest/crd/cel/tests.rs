use super::*;
use serde_json::json;

fn eval(text: &str, value: &serde_json::Value) -> Result<bool, String> {
    text.parse::<Expression>().map_err(|error| error.to_string())?.holds(value).map_err(|error| error.to_string())
}

#[test]
fn expressions_say_what_the_language_says() {
    let value = json!({
        "name": "web", "number": 3, "list": [{"type": "a"}, {"type": "b", "name": ""}], "map": {"a/b": "c"}, "off": false,
        "namespace": "shop", "time": "1m30s",
    });
    for (text, wanted) in [
        ("self.name == 'web' && self.number <= 3", true),
        ("self.name in ['shop', \"web\"]", true),
        ("self.missing == 1 || true", true),
        ("false && self.missing == 1", false),
        ("self.missing == 1 && false", false),
        ("has(self.name) && !has(self.missing)", true),
        ("has(self.missing) ? self.missing : self.number > 2", true),
        ("self.list.all(e, has(e.type))", true),
        ("self.list.exists_one(e, e.type == 'a')", true),
        ("self.list.exists_one(e, has(e.type))", false),
        ("self.list.exists(e, e.name == '') && !self.list.exists(e, e.type == 'c')", true),
        ("self.list.filter(e, e.type == 'b').size() + size(self.list) == 3", true),
        ("self.list.all(one, self.list.exists_one(other, one.type == other.type))", true),
        ("self.list[1].type == 'b'", true),
        ("self.map.all(key, key.split('/')[0].size() == 1)", true),
        ("self.__namespace__ == 'shop'", true),
        ("duration(self.time) > duration('89s') && duration(self.time) < duration('1h')", true),
        (r#"self.name.matches(r"""^w\w+$""")"#, true),
        ("self.name.substring(1).startsWith('e') && self.name.endsWith('b') && !self.name.contains('x')", true),
        ("!isIP(self.name) && isIP('::1') && isIP('10.0.0.1')", true),
        ("!format.dns1123Subdomain().validate('a.b').hasValue()", true),
        ("format.qualifiedName().validate('a b').hasValue()", true),
        ("!format.qualifiedName().validate('a b').hasValue()", false),
        ("'a' != 'b' ? 1 == 1 : self.missing", true),
        ("self.off", false),
    ] {
        assert_eq!(eval(text, &value), Ok(wanted), "{text}");
    }
}

#[test]
fn what_has_no_value_says_why() {
    let value = json!({"list": [1]});
    for (text, wanted) in [
        ("self.missing == 1", "no such key: missing"),
        ("self.list[1] == 1", "index out of bounds: 1"),
        ("self.list == 1 || self.missing", "no such key: missing"),
        ("self.list.all(e, e.x == 1)", "no such overload"),
        ("size(self.list) + 9223372036854775807 == 1", "integer overflow"),
        ("duration('1x') == duration('0s')", "invalid duration: 1x"),
        ("self", "no such overload"),
        ("other == 1", "undeclared reference to 'other'"),
    ] {
        assert_eq!(eval(text, &value), Err(wanted.to_owned()), "{text}");
    }
}

#[test]
fn what_is_not_known_is_not_parsed() {
    for text in [
        "self.sum()",
        "now()",
        "self.map(e, e)",
        "self.a.map(e, e)",
        "'a",
        "self == 'a' 'b'",
        "has(self)",
        "1 - 1",
        "(true",
    ] {
        assert!(text.parse::<Expression>().is_err(), "{text}");
    }
}

#[test]
fn rules_about_changes_are_told_from_others() {
    assert!("self == oldSelf".parse::<Expression>().unwrap().is_about_changes());
    assert!(!"self.all(e, has(e.oldSelf))".parse::<Expression>().unwrap().is_about_changes());
}
