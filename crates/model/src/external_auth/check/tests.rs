use super::*;

fn field(name: &str, value: &str, change: CheckChange) -> CheckField {
    CheckField { name: name.into(), value: value.into(), change: Some(change) }
}

fn set(name: &str, value: &str) -> CheckField {
    field(name, value, CheckChange::Replace)
}

fn allows(allowed: CheckAllowed) -> CheckAnswer {
    CheckAnswer { code: Some(0), allowed: Some(allowed), denied: None }
}

fn denies(denied: CheckDenied) -> CheckAnswer {
    CheckAnswer { code: Some(7), allowed: None, denied: Some(denied) }
}

fn has(name: &[u8]) -> bool {
    [&b"x-there"[..], b"authorization"].iter().any(|own| is_same_field(own, name))
}

/// What an answer does to the fields of a request: `=` replaces the client's, `+` adds to them, `-` removes them.
fn request(fields: Vec<CheckField>, removed: &[&str]) -> Option<Vec<String>> {
    let removed = removed.iter().map(|&name| name.to_owned()).collect();
    let CheckVerdict::Allowed(given) = allows(CheckAllowed { fields, removed, ..CheckAllowed::default() }).judge(has)
    else {
        return None;
    };
    let lines = |sign: char, lines: &[(ConfiguredName, Box<[u8]>)]| {
        let line = |(name, value): &(ConfiguredName, Box<[u8]>)| {
            format!("{}{sign}{}", name.as_str(), String::from_utf8_lossy(value))
        };
        lines.iter().map(line).collect::<Vec<_>>()
    };
    let gone = given.removed.iter().map(|name| format!("{}-", name.as_str()));
    Some([lines('=', &given.others), lines('+', &given.added), gone.collect()].concat())
}

fn respond(denied: CheckDenied) -> Respond {
    match denies(denied).judge(has) {
        CheckVerdict::Denied(respond) => respond,
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_a_plain_yes_allows() {
    let judge = |code, allowed: bool, denied: bool| {
        let (allowed, denied) = (allowed.then(CheckAllowed::default), denied.then(CheckDenied::default));
        match (CheckAnswer { code, allowed, denied }).judge(has) {
            CheckVerdict::Allowed(_) => "allowed",
            CheckVerdict::Denied(_) => "denied",
            CheckVerdict::Failed => "failed",
        }
    };
    assert_eq!((judge(Some(0), false, false), judge(Some(0), true, false)), ("allowed", "allowed"));
    assert_eq!((judge(Some(0), false, true), judge(Some(0), true, true)), ("failed", "failed"));
    for (allowed, denied) in [(false, false), (true, false), (false, true), (true, true)] {
        assert_eq!(judge(None, allowed, denied), "failed", "without a status");
        assert_eq!((judge(Some(7), allowed, denied), judge(Some(-1), allowed, denied)), ("denied", "denied"));
    }
}

#[test]
fn fields_of_a_request_are_edited_in_order() {
    use CheckChange::{AddIfAbsent, Append, Replace, ReplaceIfPresent};
    for (change, there, absent) in [
        (Replace, Some("X-There=v"), Some("X-New=v")),
        (Append, Some("X-There+v"), Some("X-New+v")),
        (AddIfAbsent, None, Some("X-New+v")),
        (ReplaceIfPresent, Some("X-There=v"), None),
    ] {
        let one = |name| request(vec![field(name, "v", change)], &[]).unwrap();
        assert_eq!(one("X-There"), Vec::from_iter(there.map(str::to_owned)), "{change:?}");
        assert_eq!(one("X-New"), Vec::from_iter(absent.map(str::to_owned)), "{change:?}");
    }
    let edits = vec![
        field("X-A", "1", Append),
        set("x_a", "2"),
        field("X-A", "3", Append),
        field("X-A", "4", AddIfAbsent),
        set("X-There", " "),
        field("X-There", "5", ReplaceIfPresent),
        field("X-There", "6", AddIfAbsent),
    ];
    assert_eq!(request(edits, &[]).unwrap(), ["X-A=2", "X-A=3", "X-There=6"]);
    assert_eq!(request(vec![set("X-There", "")], &[]).unwrap(), ["X-There-"]);
    // Removal wins, whatever was set before.
    assert_eq!(request(vec![set("X-A", "1")], &["x-a", "Authorization"]).unwrap(), ["x-a-", "Authorization-"]);
}

#[test]
fn an_edit_without_a_say_about_others_replaces_them() {
    use CheckChange::{AddIfAbsent, Append, Replace, ReplaceIfPresent};
    for (append, action, change) in [
        (None, 0, Some(Replace)),
        (None, 1, Some(AddIfAbsent)),
        (None, 2, Some(Replace)),
        (None, 3, Some(ReplaceIfPresent)),
        (None, 4, None),
        (None, -1, None),
        (Some(true), 2, Some(Append)),
        (Some(false), 1, Some(Replace)),
    ] {
        assert_eq!(CheckChange::of(append, action), change, "{append:?} {action}");
    }
    let unknown = CheckField { change: None, ..set("X-A", "1") };
    assert_eq!(request(vec![unknown], &[]), None);
}

#[test]
fn what_frames_a_message_is_left_alone_and_what_it_is_for_can_not_be_changed() {
    for name in ["Content-Length", "transfer-encoding", "Connection", "TE", "Expect", "content_length"] {
        assert_eq!(request(vec![set(name, "1")], &[name]).unwrap(), [""; 0], "{name}");
    }
    for name in ["Host", "host", ":path", ":authority", "", "a b", "a:"] {
        assert_eq!(request(vec![set(name, "x")], &[]), None, "{name}");
        assert_eq!(request(Vec::new(), &[name]).unwrap(), [""; 0], "{name}");
    }
    for value in ["a\r\nb: c", "a\nb", "a\0", "\x7f"] {
        assert_eq!(request(vec![set("X-A", value)], &[]), None, "{value:?}");
        let response = vec![set("X-A", value)];
        let judged = allows(CheckAllowed { response, ..CheckAllowed::default() }).judge(has);
        assert_eq!(judged, CheckVerdict::Failed, "{value:?}");
    }
    let edits_query = CheckAllowed { edits_query: true, ..CheckAllowed::default() };
    assert_eq!(allows(edits_query).judge(has), CheckVerdict::Failed);
}

#[test]
fn the_edits_of_an_answer_are_bounded() {
    let many = |count| (0..count).map(|at| set(&format!("X-{at}"), "v")).collect::<Vec<_>>();
    assert_eq!(request(many(CheckAnswer::EDITS), &[]).map(|edits| edits.len()), Some(CheckAnswer::EDITS));
    assert_eq!(request(many(CheckAnswer::EDITS), &["X-A"]), None);
    let fields = many(CheckAnswer::EDITS + 1);
    assert_eq!(respond(CheckDenied { fields, ..CheckDenied::default() }).fields.len(), CheckAnswer::EDITS);
}

#[test]
fn fields_of_a_response_replace_each_other() {
    use CheckChange::{AddIfAbsent, Append, ReplaceIfPresent};
    let response = vec![
        field("X-A", "1", Append),
        set("x-a", "2"),
        field("X-A", "3", Append),
        field("X-B", "4", AddIfAbsent),
        field("X-C", "5", ReplaceIfPresent),
        set("Content-Length", "1"),
        set("Date", "today"),
        set("server", "auth"),
        set("Set-Cookie", "a=1"),
        set("set-cookie", "b=2"),
    ];
    let CheckVerdict::Allowed(given) = allows(CheckAllowed { response, ..CheckAllowed::default() }).judge(has) else {
        panic!("it allows")
    };
    let told =
        |one: &GivenField| format!("{} {} {:?}", String::from_utf8_lossy(&one.value), one.replaces, one.only_with);
    let told: Vec<_> = given.response.iter().map(told).collect();
    assert_eq!(
        told,
        ["2 true None", "3 false None", "4 false Some(false)", "5 true Some(true)", "a=1 false None", "b=2 false None"]
    );
    assert!(given.size() > AuthGiven::default().size() + 4 * size_of::<GivenField>());
}

#[test]
fn a_denial_has_the_status_of_an_error_or_a_redirect() {
    for (status, expected) in [
        (0, 403),
        (401, 401),
        (302, 302),
        (308, 308),
        (429, 429),
        (503, 503),
        (599, 599),
        (100, 403),
        (101, 403),
        (200, 403),
        (204, 403),
        (304, 403),
        (600, 403),
        (-401, 403),
        (i32::MAX, 403),
    ] {
        assert_eq!(respond(CheckDenied { status, ..CheckDenied::default() }).status, expected, "{status}");
    }
    assert_eq!(
        CheckAnswer { code: Some(16), ..CheckAnswer::default() }.judge(has),
        CheckVerdict::Denied(Respond::page(403))
    );
}

#[test]
fn a_denial_has_the_fields_and_the_body_of_the_service() {
    let fields = vec![
        set("WWW-Authenticate", "Bearer"),
        set("content-type", "application/json"),
        set("Content-Length", "9"),
        set("Connection", "close"),
        set("Date", "today"),
        set("X-A", "1"),
        field("x-a", "2", CheckChange::Append),
        set("Set-Cookie", "a=1"),
        set("set-cookie", "b=2"),
        set("X-Bad", "a\nb"),
        set(":status", "200"),
    ];
    let answer = respond(CheckDenied { status: 401, fields, body: "{}".into() });
    let told: Vec<_> = answer.fields.iter().map(|(name, value)| format!("{}: {value}", name.as_str())).collect();
    assert_eq!(told, ["WWW-Authenticate: Bearer", "X-A: 1", "x-a: 2", "Set-Cookie: a=1", "set-cookie: b=2"]);
    assert_eq!(answer.body, Body::Text { content_type: "application/json".into(), text: "{}".into() });
    assert_eq!(respond(CheckDenied::default()).body, Body::Empty);
    let plain = respond(CheckDenied { body: "no".into(), ..CheckDenied::default() });
    assert_eq!(plain.body, Body::Text { content_type: "text/plain".into(), text: "no".into() });
}
