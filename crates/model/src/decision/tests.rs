use super::*;
use crate::{
    AccessList, AfterChange, Backend, Backends, Balance, Body, Coding, Compressing, Conditions, Cors, Delta, Endpoint,
    EndpointSet, Endpoints, FieldEdit, FieldLine, FieldName, FieldRules, FieldSink, Filter, ForwardPolicy, Host,
    HostPattern, HttpsRedirect, KnownField, KnownSet, Location, NetworkSet, Origin, PathChange, PathMatch, Protocol,
    Redirect, RedirectBase, Resource, Rewrite, Settings, Snippet, SnippetEdits, SnippetStep, Template, WeightedBackend,
};

const TABLE: &str = "ingress";

fn backend(name: &str, ready: bool) -> [Resource; 2] {
    let endpoints = if ready { vec![Endpoint::ready(([10, 0, 0, 1], 80).into())] } else { Vec::new() };
    let backend = Backend {
        name: name.into(),
        origin: Origin::new("Service", "default", name),
        port: "80".into(),
        upstream_name: name.into(),
        protocol: Protocol::Http1,
        balance: Balance::RoundRobin,
        affinity: None,
        health_check: None,
        retry: None,
        request_fields: Vec::new(),
    };
    [backend.into(), EndpointSet { backend: name.into(), endpoints: Endpoints::Addresses(endpoints) }.into()]
}

fn to(backends: impl Into<Backends>) -> Action {
    let policy = ForwardPolicy { max_body: crate::ByteLimit::of(10), ..ForwardPolicy::default() };
    let fallback = Some("fallback".into());
    Action::Forward(Forward { backends: backends.into(), fallback, session_cookie_path: None, policy: policy.into() })
}

fn route(path: PathMatch, filters: Vec<Filter>, action: Action) -> Route {
    Route { filters, ..Route::new(Origin::new("Ingress", "default", "web"), path, action) }
}

fn snapshot(routes: Vec<Route>, settings: Settings) -> Snapshot {
    let host = Host::new(TABLE.into(), HostPattern::parse("a.example").unwrap(), routes);
    let mut resources = vec![host.into(), settings.into()];
    for (name, ready) in [("web", true), ("empty", false), ("fallback", true)] {
        resources.extend(backend(name, ready));
    }
    Snapshot::default().apply(Delta::upsert(resources))
}

struct Decided {
    plan: String,
    target: String,
    location: String,
}

fn ask(snapshot: &Snapshot, path: &str, query: Option<&str>, fields: &[(&str, &str)], length: Option<u64>) -> Decided {
    let lines: Vec<_> = fields.iter().map(|(name, value)| FieldLine::new(name.as_bytes(), value.as_bytes())).collect();
    // No real field has this name, so it can stand for the method.
    let method = fields.iter().find(|(name, _)| *name == "(method)").map_or("GET", |(_, method)| method);
    let head = RequestView {
        method: method.as_bytes(),
        raw_target: path.as_bytes(),
        target: Target::Path(path.as_bytes(), query.map(str::as_bytes)),
        authority: Some(crate::HostAndPort { text: b"A.example:80", canonical: None }),
        length,
        fields: &lines[..],
    };
    let (peer, local) = (([10, 9, 9, 9], 1).into(), ([10, 0, 0, 2], 80).into());
    let arrival = Arrival::new(peer, local, Scheme::Http);
    let received = Received { head, arrival: &arrival, table: &TABLE.into() };
    let mut scratch = Scratch::default();
    let plan = decide(snapshot, &received, &mut SnapshotFacts(snapshot), Start::Head, &mut scratch);
    let text = match plan.step {
        Step::Forward(to) => format!("{} {:?} {}", to.backend, to.in_place_of.map(BackendName::as_str), to.open),
        Step::Redirect(status) => status.to_string(),
        Step::Respond(respond) => respond.status.to_string(),
        Step::Deny => "denied".to_owned(),
        Step::Fail(failure) => format!("{} {failure:?}", failure.status()),
        Step::Wait(_) => "waits".to_owned(),
    };
    let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Decided { plan: text, target: lossy(&scratch.target), location: lossy(&scratch.location) }
}

fn prefix(path: &str) -> PathMatch {
    PathMatch::prefix(path).unwrap()
}

#[test]
fn a_request_goes_where_its_route_says() {
    let rewrite = Filter::Rewrite(Rewrite { target: "/x/$1".into(), forwarded_prefix: None }.into());
    let hidden = Filter::Rewrite(Rewrite { target: "/x/../$1".into(), forwarded_prefix: None }.into());
    let (web, empty) = (|| to("web"), || to("empty"));
    let snapshot = snapshot(
        vec![
            route(prefix("/"), vec![], web()),
            route(prefix("/fallback"), vec![Filter::RequireEndpoints], empty()),
            route(PathMatch::regex("/old/(.*)").unwrap(), vec![rewrite], web()),
            route(PathMatch::regex("/dots/(.*)").unwrap(), vec![hidden], web()),
        ],
        Settings::default(),
    );
    let asked = |path: &str| {
        let decided = ask(&snapshot, path, Some("q"), &[], None);
        (decided.plan, decided.target)
    };
    let web = || "web None true".to_owned();
    assert_eq!(asked("/a//b"), (web(), "/a//b?q".into()));
    assert_eq!(asked("/old/a%20b"), (web(), "/x/a%20b?q".into()));
    assert_eq!(asked("/fallback").0, "fallback Some(\"empty\") true");
    assert_eq!(asked("/dots/a").0, "400 Rewritten");
    assert_eq!(asked("/old%2Fa").0, "400 Ambiguous(AmbiguousPath)");
    assert_eq!(asked("/../a").0, "400 Path(AboveRoot)");
    assert_eq!(ask(&snapshot, "/", None, &[], Some(11)).plan, "413 BodyTooLarge");
}

#[test]
fn no_part_of_a_path_becomes_a_query_or_a_parameter() {
    let rewrite = |pattern: &str, target: &str, then| {
        let (pattern, target) = (pattern.parse().unwrap(), Template::parse(target));
        SnippetStep::Rewrite(Box::new(PathChange { pattern, target, keeps_query: true, then }))
    };
    let steps = vec![
        rewrite("^/path/(.*)", "/b/$1", AfterChange::Stay),
        rewrite("^/query/(.*)", "/b?x=$1", AfterChange::Stay),
        rewrite("^/moved", "https://b.example$request_uri", AfterChange::Redirect(302)),
    ];
    let snippet = Snippet { of_host: false, methods: Vec::new(), steps, edits: SnippetEdits::default() };
    let annotated = Filter::Rewrite(Rewrite { target: "/b/$1".into(), forwarded_prefix: None }.into());
    let snapshot = snapshot(
        vec![
            route(prefix("/"), vec![Filter::Snippet(Arc::new(snippet))], to("web")),
            route(PathMatch::regex("/annotated/(.*)").unwrap(), vec![annotated], to("web")),
        ],
        Settings::default(),
    );
    // What nginx 1.22.1 sends for the same requests.
    for (path, target) in [
        ("/annotated/a%3Fb%26c=d", "/b/a%3Fb&c=d?q=1"),
        ("/path/a%3Fb%26c=d", "/b/a%3Fb&c=d?q=1"),
        ("/query/a%3Fb%26c=d%25f%23g%20h%2Bi%3Bj", "/b?x=a%3Fb%26c=d%25f%23g%20h%2Bi%3Bj&q=1"),
    ] {
        assert_eq!(ask(&snapshot, path, Some("q=1"), &[], None).target, target, "{path}");
    }
    assert_eq!(ask(&snapshot, "/moved?a", None, &[], None).location, "https://b.example/moved?a");
}

#[test]
fn filters_run_in_their_order_and_what_trusted_peers_say_counts() {
    let https = || Filter::HttpsRedirect(HttpsRedirect { status: 308, preserve_trailing_slash: false, port: None });
    let port = HttpsRedirect { status: 301, preserve_trailing_slash: true, port: Some(8443) };
    let with_port =
        snapshot(vec![route(prefix("/"), vec![Filter::HttpsRedirect(port)], to("web"))], Settings::default());
    let plain = ask(&with_port, "/a/", None, &[], None);
    assert_eq!((plain.plan.as_str(), plain.location.as_str()), ("301", "https://A.example:8443/a/"));
    let allow: NetworkSet = ["192.0.2.0/24".parse().unwrap()].into_iter().collect();
    let list = Filter::AccessList(AccessList { deny: NetworkSet::default(), allow: Some(allow) });
    let mut settings = Settings::default();
    settings.forwarded.trust = true;
    let snapshot = snapshot(vec![route(prefix("/"), vec![https(), list], to("web"))], settings);
    let asked = |fields: &[(&str, &str)]| ask(&snapshot, "/a/", None, fields, None);
    let plain = asked(&[]);
    assert_eq!((plain.plan.as_str(), plain.location.as_str()), ("308", "https://A.example/a"));
    assert_eq!(asked(&[("x-forwarded-proto", "https")]).plan, "403");
    for proto in ["https", "wss", "ws", "spdy"] {
        let fields = [("x-forwarded-proto", proto), ("x-forwarded-for", "192.0.2.7")];
        assert_eq!(asked(&fields).plan, "web None true", "{proto}");
    }
}

#[test]
fn redirects_are_complete() {
    let redirect = |location| Action::Redirect(Redirect::new(302, location));
    let snapshot = snapshot(
        vec![
            route(
                PathMatch::regex("/(.*)").unwrap(),
                vec![],
                redirect(Location::Captures("https://b.example/$1".into())),
            ),
            route(PathMatch::exact("/root").unwrap(), vec![], redirect(Location::AppRoot("/app".into()))),
        ],
        Settings { forwarded: crate::ForwardedHeaders { trust: true, ..Default::default() }, ..Settings::default() },
    );
    let fields = [("x-forwarded-host", "evil.example"), ("x-forwarded-proto", "https")];
    assert_eq!(ask(&snapshot, "/a/b", Some("c=d"), &fields, None).location, "https://b.example/a/b?c=d");
    assert_eq!(ask(&snapshot, "/root", None, &fields, None).location, "http://A.example:80/app");
}

#[test]
fn redirects_to_a_path_of_the_same_host_name_the_port_that_is_asked_for() {
    for (base, plain, forwarded) in [
        (RedirectBase::Host, "http://A.example", "https://f.example"),
        (RedirectBase::HostAndPort, "http://A.example:80", "https://f.example:8443"),
        (RedirectBase::Listener, "http://A.example", "https://f.example:9443"),
        (RedirectBase::Nothing, "", ""),
    ] {
        let redirect = |location| Action::Redirect(Redirect { base, ..Redirect::new(302, location) });
        let snapshot = snapshot(
            vec![
                route(PathMatch::exact("/local").unwrap(), vec![], redirect(Location::Fixed("/there".into()))),
                route(PathMatch::exact("/slash").unwrap(), vec![], redirect(Location::AppendSlash)),
                route(prefix("/else"), vec![], redirect(Location::Fixed("https://e.example/".into()))),
            ],
            Settings {
                forwarded: crate::ForwardedHeaders { trust: true, ..Default::default() },
                ..Settings::default()
            },
        );
        let fields =
            [("x-forwarded-host", "f.example:8443"), ("x-forwarded-proto", "https"), ("x-forwarded-port", "9443")];
        let location = |path, query, fields| ask(&snapshot, path, query, fields, None).location;
        assert_eq!(location("/local", None, &[]), format!("{plain}/there"), "{base:?}");
        assert_eq!(location("/slash", Some("q"), &[]), format!("{plain}/slash/?q"), "{base:?}");
        assert_eq!(location("/local", None, &fields), format!("{forwarded}/there"), "{base:?}");
        assert_eq!(location("/else", None, &fields), "https://e.example/", "{base:?}");
    }
}

#[test]
fn conditions_choose_among_routes_of_a_path() {
    let conditions = |method: Option<&str>, fields: &[(&str, &str)]| Conditions {
        method: method.map(Into::into),
        fields: fields
            .iter()
            .map(|(name, value)| crate::FieldMatch {
                name: (*name).try_into().unwrap(),
                value: crate::ValueMatch::Regex(value.parse().unwrap()),
            })
            .collect(),
        ..Conditions::default()
    };
    let with = |conditions: Option<Conditions>, status| Route {
        conditions: conditions.map(Box::new),
        ..route(prefix("/a"), vec![], Action::Respond(Respond { body: Body::Empty, ..Respond::empty(status) }))
    };
    let snapshot = snapshot(
        vec![
            with(None, 200),
            with(Some(conditions(None, &[("x-a", "1|2")])), 201),
            with(Some(conditions(None, &[("x-a", "1"), ("x-b", ".*")])), 202),
            with(Some(conditions(Some("GET"), &[("x-c", "1")])), 203),
        ],
        Settings::default(),
    );
    for (fields, status) in [
        (&[][..], "200"),
        (&[("X-A", "2")], "201"),
        (&[("X-A", "12")], "200"),
        (&[("x-a", "1"), ("x-b", "")], "202"),
        (&[("x-a", "1"), ("x-b", ""), ("x-c", "1")], "203"),
    ] {
        assert_eq!(ask(&snapshot, "/a", None, fields, None).plan, status, "{fields:?}");
    }
}

#[test]
fn weights_are_shares() {
    let list = [("a", 1), ("b", 0), ("c", 3)].map(|(name, weight)| WeightedBackend {
        backend: name.into(),
        weight,
        filters: Vec::new(),
        tls: None,
    });
    let backends = Backends::Weighted(list.to_vec());
    let chosen = |random: u64| backends.choose(|| random).map(|(name, _)| name.as_str());
    let quarter = u64::MAX / 4;
    assert_eq!(
        [chosen(0), chosen(quarter - 1), chosen(quarter + 2), chosen(u64::MAX)].map(Option::unwrap),
        ["a", "a", "c", "c"]
    );
    let none = WeightedBackend { backend: "a".into(), weight: 0, filters: Vec::new(), tls: None };
    assert_eq!(Backends::Weighted(vec![none]).choose(|| 7), None);
    assert_eq!(Backends::Weighted(Vec::new()).choose(|| 7), None);
}

#[test]
fn edits_are_data() {
    struct Nothing;
    impl Expand for Nothing {
        fn expand(&mut self, template: &Template, out: &mut Vec<u8>) -> Result<(), TooLong> {
            out.extend_from_slice(template.text().to_ascii_uppercase().as_bytes());
            Ok(())
        }
    }
    let set = |name: &str, value: &str| FieldEdit::set(name, value).unwrap();
    let settings = Settings { response_fields: vec![set("X-Global", "$g"), set("X-Gone", "")], ..Settings::default() };
    let rules = FieldRules::new(&settings);
    let of_route = vec![
        set("X-Global", "route"),
        set("x-own", "r"),
        FieldEdit::new("Vary".try_into().unwrap(), crate::Change::Add(Template::parse("b"))),
    ];
    let route = route(prefix("/"), vec![Filter::EditResponse(of_route)], Action::Respond(Respond::not_found()));
    let plan = Plan {
        host: None,
        route: Some(&route),
        step: Step::Redirect(302),
        passed: 1,
        scheme: Scheme::Http,
        wider_than: None,
        chosen: None,
        canary: None,
        replaced: false,
        errors: None,
        error: None,
        edits_request: false,
        edits_response: true,
        cors: None,
        snippet: None,
        allowed_by: None,
        copies: false,
        guarded_by: None,
        exempt: false,
        lacks_password: false,
        hides_credentials: false,
    };
    let lines = [("x-global", "1"), ("X-Own", "2"), ("vary", "a"), ("x-gone", "3"), ("Server", "x"), ("x-kept", "4")]
        .map(|(name, value)| FieldLine::new(name.as_bytes(), value.as_bytes()));
    let mut out: Vec<(String, String)> = Vec::new();
    let edits = ResponseEdits {
        plan: Some(&plan),
        rules: &rules,
        cookies: b"",
        compressing: Compressing::Never,
        added: &[],
        given: &[],
        status: 200,
        substituting: false,
    };
    edits.write(&lines[..], KnownSet::EMPTY, &mut out, &mut Vec::new(), &mut Nothing).unwrap();
    let text: Vec<_> = out.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(text, ["vary=a", "x-kept=4", "x-own=r", "Vary=b", "X-Global=$G"]);
}

#[test]
fn a_compressed_response_says_so_and_its_tag_is_weak() {
    struct Nothing;
    impl Expand for Nothing {
        fn expand(&mut self, _: &Template, _: &mut Vec<u8>) -> Result<(), TooLong> {
            Ok(())
        }
    }
    let written = |compressing: Compressing, tag: &str, vary: &str| {
        let rules = FieldRules::new(&Settings::default());
        let edits = ResponseEdits {
            plan: None,
            rules: &rules,
            cookies: b"",
            compressing,
            added: &[],
            given: &[],
            status: 200,
            substituting: false,
        };
        let lines = [("ETag", tag), ("Vary", vary), ("Accept-Ranges", "bytes"), ("Content-Length", "9")]
            .map(|(name, value)| FieldLine::new(name.as_bytes(), value.as_bytes()));
        let mut out: Vec<(String, String)> = Vec::new();
        edits.write(&lines[..], KnownSet::EMPTY, &mut out, &mut Vec::new(), &mut Nothing).unwrap();
        out.into_iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>()
    };
    let gzip = Compressing::With(Coding::Gzip);
    let coded = ["Vary=Origin", "Vary=Accept-Encoding", "Content-Encoding=gzip", "ETag=W/\"1\""];
    assert_eq!(written(gzip, "\"1\"", "Origin"), coded);
    assert_eq!(written(gzip, "W/\"1\"", "a, accept-encoding")[1..], ["Content-Encoding=gzip", "ETag=W/\"1\""]);
    let plain = ["ETag=\"1\"", "Vary=*", "Accept-Ranges=bytes", "Content-Length=9"];
    assert_eq!(written(Compressing::Never, "\"1\"", "*"), plain);
    assert_eq!(written(Compressing::NotForClient, "\"1\"", "*"), plain, "* covers everything");
    let others = written(Compressing::NotForClient, "\"1\"", "a");
    assert_eq!(others.last().map(String::as_str), Some("Vary=Accept-Encoding"));
}

/// Collects edited fields in a list.
impl<'a, F: Fields<'a>> FieldSink<F> for Vec<(String, String)> {
    type Prepared = Self;

    fn field(&mut self, name: FieldName<'_>, value: &[u8]) {
        if value.iter().all(|&byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f)) {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            self.push((text(name.as_bytes()), text(value)));
        }
    }

    fn number(&mut self, name: FieldName<'_>, number: u64) {
        FieldSink::<F>::field(self, name, number.to_string().as_bytes());
    }

    fn prepared(&mut self, lines: &Self) {
        self.extend_from_slice(lines);
    }

    fn forward(&mut self, fields: F, drop: KnownSet, mut drop_also: impl FnMut(KnownField, &[u8]) -> bool) {
        for line in fields.lines() {
            if !drop.contains(line.known)
                && !drop_also(line.known, line.name)
                && let Ok(name) = FieldName::try_from(line.name)
            {
                FieldSink::<F>::field(self, name, line.value);
            }
        }
    }
}

#[test]
fn preflights_of_admitted_origins_are_answered_before_redirects() {
    let origins = crate::Origins::Listed(vec!["https://*.a.example".into()]);
    let cors = || Filter::Cors(Cors::new(origins.clone(), true, "GET", "X-A", "", 600).into());
    let https = Filter::HttpsRedirect(HttpsRedirect { status: 308, preserve_trailing_slash: false, port: None });
    let routes =
        vec![route(prefix("/"), vec![cors(), https], to("web")), route(prefix("/clear"), vec![cors()], to("web"))];
    let snapshot = snapshot(routes, Settings::default());
    let preflight = |origin: &str| ask(&snapshot, "/", None, &[("(method)", "OPTIONS"), ("Origin", origin)], None).plan;
    assert_eq!(preflight("https://x.a.example"), "204");
    assert_eq!(preflight("https://a.example"), "308");
    assert_eq!(ask(&snapshot, "/", None, &[("Origin", "https://x.a.example")], None).plan, "308");
    let twice = [("(method)", "OPTIONS"), ("Origin", "https://x.a.example"), ("Origin", "https://x.a.example")];
    assert_eq!(ask(&snapshot, "/clear", None, &twice, None).plan, "web None true");
}

#[test]
fn of_the_gateway_api_only_what_asks_for_a_method_is_a_preflight() {
    let origins = crate::Origins::Listed(vec!["https://a.example".into()]);
    let methods = ["GET".to_owned()];
    let rules = crate::CorsRules { methods: &methods, max_age: 5, ..crate::CorsRules::default() };
    let cors = Filter::Cors(Cors::of_gateway(origins, &rules).into());
    let snapshot = snapshot(vec![route(prefix("/"), vec![cors], to("web"))], Settings::default());
    let asks = ("Access-Control-Request-Method", "GET");
    let plan = |fields: &[(&str, &str)]| ask(&snapshot, "/", None, fields, None).plan;
    for origin in ["https://a.example", "https://other.example"] {
        assert_eq!(plan(&[("(method)", "OPTIONS"), ("Origin", origin), asks]), "204", "{origin}");
        assert_eq!(plan(&[("(method)", "OPTIONS"), ("Origin", origin)]), "web None true", "{origin}");
        assert_eq!(plan(&[("Origin", origin), asks]), "web None true", "{origin}");
    }
}

#[test]
fn the_chosen_backend_has_filters_of_its_own() {
    let edit = |value: &str| Filter::EditRequest(vec![FieldEdit::set("X-Backend", value).unwrap()]);
    let share = |name: &str, weight, with: &str| WeightedBackend {
        backend: name.into(),
        weight,
        filters: vec![edit(name), Filter::ReplacePath { with: crate::PathReplacement::Prefix(with.into()) }],
        tls: None,
    };
    for (weights, expected) in [((1, 0), ("web", "/one/x?q")), ((0, 1), ("fallback", "/two/x?q"))] {
        let backends = Backends::Weighted(vec![share("web", weights.0, "/one"), share("empty", weights.1, "/two")]);
        let snapshot = snapshot(vec![route(prefix("/a"), Vec::new(), to(backends))], Settings::default());
        let asked = ask(&snapshot, "/a/x", Some("q"), &[], None);
        assert_eq!((asked.plan.split(' ').next().unwrap(), &*asked.target), expected);
    }
}
