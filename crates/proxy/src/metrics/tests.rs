use super::*;
use crate::reason::{Cause, Reason};
use crate::record::RequestRecord;
use crate::record::fixture::{Fixture, host, one_try};
use allocation_counter::measure;
use fairway_model::{Certificate, Delta, Host, HostPattern, PrivateKey, Resource, Route, Snapshot};
use std::sync::Arc;

fn worker(change: impl FnOnce(&mut MetricOptions)) -> (Arc<MetricOptions>, WorkerMetrics) {
    let constant = ConstantLabels { namespace: "ns".to_owned(), class: "nginx".to_owned(), pod: "pod-1".to_owned() };
    let mut options = MetricOptions { constant, ..MetricOptions::default() };
    change(&mut options);
    let options = Arc::new(options);
    (options.clone(), WorkerMetrics::new(options))
}

fn snapshot(ingresses: &[&str]) -> Snapshot {
    let hosts = ingresses.iter().map(|name| Resource::from(host(&format!("{name}.example"), name)));
    Snapshot::default().apply(Delta::upsert(hosts))
}

fn live_of(snapshot: &Snapshot) -> LiveRoutes {
    LiveRoutes::of(snapshot, true)
}

fn full(options: &mut MetricOptions) {
    options.detail = Detail::Full;
    options.time_buckets = Buckets::times();
}

fn exposition(options: &MetricOptions, snapshot: &Snapshot, reports: Vec<WorkerReport>) -> Exposition {
    let mut totals = Totals::new(options);
    reports.into_iter().for_each(|report| totals.add(report));
    Exposition {
        options: Arc::new(options.clone()),
        totals,
        snapshot: Arc::new(snapshot.clone()),
        config: ConfigStatus { successes: 2, errors: 1, hash: u64::MAX, whole: true, last_success: 1000.5, version: 7 },
        proxy: ProxyFigures { workers: 2, ..ProxyFigures::default() },
        process: ProcessFigures { resident_bytes: 5_000_000_000, ..ProcessFigures::default() },
        findings: [(("error", "ServiceNotFound"), 2)].into(),
    }
}

fn rendered(options: &MetricOptions, snapshot: &Snapshot, reports: Vec<WorkerReport>) -> String {
    let mut pages = exposition(options, snapshot, reports).pages(MetricFormat::Text);
    let mut text = String::new();
    while let Some(page) = pages.page() {
        text.push_str(std::str::from_utf8(page).unwrap());
    }
    text
}

const CONSTANT: &str = "controller_class=\"nginx\",controller_namespace=\"ns\",controller_pod=\"pod-1\"";

fn series(text: &str, start: &str) -> Vec<String> {
    let full = format!("nginx_ingress_controller_{start}");
    text.lines().filter(|line| line.starts_with(&full)).map(|line| line.replace(CONSTANT, "C")).collect()
}

#[test]
fn requests_are_counted_under_the_names_of_ingress_nginx() {
    let (options, mut one) = worker(full);
    let mut other = WorkerMetrics::new(options.clone());
    let fixture = Fixture::new("GET /a HTTP/1.1", "");
    one.record(&fixture.record());
    one.record(&fixture.record());
    other.record(&fixture.record());
    other.record(&RequestRecord { status: 404, tries: &[], ..fixture.record() });
    let snapshot = snapshot(&["web"]);
    let live = live_of(&snapshot);
    let text = rendered(&options, &snapshot, vec![one.report(1, &live), other.report(1, &live)]);
    let labels =
        "C,canary=\"\",ingress=\"web\",namespace=\"default\",path=\"/a\",service=\"web\",host=\"shop.example\"";
    assert_eq!(
        series(&text, "requests{"),
        [
            format!("nginx_ingress_controller_requests{{{labels},method=\"GET\",status=\"200\"}} 3"),
            format!("nginx_ingress_controller_requests{{{labels},method=\"GET\",status=\"404\"}} 1"),
        ]
    );
    let durations = series(&text, "request_duration_seconds_bucket");
    assert_eq!(durations.len(), 24);
    assert!(durations[0].ends_with("status=\"200\",le=\"0.005\"} 0"), "{}", durations[0]);
    assert!(durations[2].ends_with("status=\"200\",le=\"0.025\"} 3"), "{}", durations[2]);
    assert!(durations[11].ends_with("le=\"+Inf\"} 3"));
    assert_eq!(series(&text, "connect_duration_seconds_count").len(), 1, "no sample without a try, and no series");
    assert!(series(&text, "response_size_sum")[0].ends_with(" 450"));
    assert!(series(&text, "request_size_count")[0].ends_with(" 3"));
    assert_eq!(series(&text, "bytes_sent_bucket").len(), 16);
}

#[test]
fn failures_are_counted_by_reason_and_side() {
    let (options, mut one) = worker(|_| {});
    let mut other = WorkerMetrics::new(options.clone());
    let mut fixture = Fixture::new("GET /a HTTP/1.1", "");
    let refused = Some(Reason::ConnectRefused);
    fixture.tries.insert(0, crate::record::Try { reason: refused, ..one_try("10.0.0.2:80", 502) });
    one.record(&fixture.record());
    let cause = refused.map(Cause::from);
    one.record(&RequestRecord { cause, ..fixture.record() });
    other.record(&RequestRecord { cause, ..fixture.record() });
    let unknown = Some(Reason::NoHost.into());
    other.record(&RequestRecord {
        cause: unknown,
        route: None,
        host: None,
        backend: None,
        tries: &[],
        ..fixture.record()
    });
    let backend = fixture.backend.clone();
    let snapshot = snapshot(&["web"]).apply(Delta::upsert([backend.into()]));
    let live = live_of(&snapshot);
    let text = rendered(&options, &snapshot, vec![one.report(1, &live), other.report(1, &live)]);
    let web = "ingress=\"web\",namespace=\"default\",service=\"web\",reason=\"connect_refused\",side=\"upstream\"";
    for expected in [
        format!("fairway_request_failures_total{{C,{web}}} 2"),
        format!("fairway_upstream_failures_total{{C,{web}}} 3"),
        "fairway_request_failures_total{C,ingress=\"\",namespace=\"\",service=\"\",reason=\"no_host\",side=\"downstream\"} 1"
            .to_owned(),
    ] {
        assert!(text.replace(CONSTANT, "C").lines().any(|line| line == expected), "{expected} in\n{text}");
    }
    one.report(2, &LiveRoutes::default());
    let text = rendered(&options, &snapshot, vec![one.report(2, &LiveRoutes::default()), other.report(1, &live)]);
    assert!(
        text.contains(&format!("fairway_request_failures_total{{{CONSTANT},{web}}} 1")),
        "one worker has forgotten its Ingress"
    );
}

/// Two routes for one host, the second of which follows the first at any path, each with its own series.
#[test]
fn routes_of_the_gateway_api_are_told_apart() {
    let (options, mut metrics) = worker(|_| {});
    let fixture = Fixture::new("GET /a HTTP/1.1", "");
    let of_route = |name: &str, path: &str| {
        let mut route = host("r.example", name).routes()[0].clone();
        route.origin = fairway_model::Origin::new("HTTPRoute", "shop", name).section("rules[0]");
        route.rule = path.into();
        Host::new("t".into(), HostPattern::parse("r.example").unwrap(), vec![route])
    };
    let second = Arc::new(of_route("r2", "/two"));
    let onward = fairway_model::Onward { then: Some(second.clone()), ..fairway_model::Onward::default() };
    let first = of_route("r1", "/one").with_onward(Some(onward));
    let bad = Some(Reason::Misconfigured.into());
    for (host, cause) in [(&first, None), (&*second, None), (&*second, bad)] {
        let route = host.routes().first();
        metrics.record(&RequestRecord { host: Some(host), route, cause, ..fixture.record() });
    }
    let snapshot = Snapshot::default().apply(Delta::upsert([first.clone().into(), fixture.backend.clone().into()]));
    let live = live_of(&snapshot);
    metrics.report(1, &live);
    let text = rendered(&options, &snapshot, vec![metrics.report(1, &live)]);
    let labels = |name, path| {
        format!(
            "C,canary=\"\",ingress=\"{name}\",namespace=\"shop\",path=\"{path}\",service=\"web\",host=\"r.example\""
        )
    };
    assert_eq!(
        series(&text, "requests{"),
        [("r1", "/one", 1), ("r2", "/two", 2)].map(|(name, path, count)| {
            format!("nginx_ingress_controller_requests{{{},method=\"GET\",status=\"200\"}} {count}", labels(name, path))
        })
    );
    let failed = "ingress=\"r2\",namespace=\"shop\",service=\"web\",reason=\"misconfigured\",side=\"internal\"} 1";
    assert!(text.contains(failed), "{text}");
}

#[test]
fn several_tries_have_no_single_time() {
    let (options, mut metrics) = worker(full);
    let mut fixture = Fixture::new("GET /a HTTP/1.1", "");
    fixture.tries.push(one_try("10.0.0.2:80", 200));
    metrics.record(&fixture.record());
    let snapshot = snapshot(&["web"]);
    let text = rendered(&options, &snapshot, vec![metrics.report(1, &live_of(&snapshot))]);
    assert!(series(&text, "header_duration_seconds").is_empty());
    assert!(series(&text, "response_duration_seconds").is_empty());
    assert_eq!(series(&text, "request_duration_seconds_count").len(), 1);
}

#[test]
fn labels_follow_the_flags() {
    let snapshot = snapshot(&["web"]);
    let text = |change: fn(&mut MetricOptions), no_route: bool| {
        let (options, mut metrics) = worker(change);
        let fixture = Fixture::new("PROPFIND /a HTTP/1.1", "");
        let mut record = fixture.record();
        if no_route {
            (record.route, record.host, record.backend) = (None, None, None);
        }
        metrics.record(&record);
        metrics.record(&record);
        series(&rendered(&options, &snapshot, vec![metrics.report(1, &live_of(&snapshot))]), "requests{").join("\n")
    };
    assert!(text(|_| {}, false).contains("method=\"OTHER\",status=\"200\"} 2"));
    assert!(text(|options| options.status_classes = true, false).contains("status=\"2xx\""));
    assert!(!text(|options| options.per_host = false, false).contains("host="));
    assert_eq!(text(|options| options.exclude(["nginx_ingress_controller_requests"]), false), "");
    assert_eq!(text(|_| {}, true), "");
    assert!(text(|options| options.undefined_hosts = true, true).contains("ingress=\"\""));
    assert!(text(|options| options.undefined_hosts = true, true).contains("host=\"shop.example\""));
    assert!(text(|options| options.per_host = false, true).contains("ingress=\"\""));
}

#[test]
fn invented_statuses_are_bounded() {
    let (_, mut metrics) = worker(|_| {});
    let fixture = Fixture::new("GET /a HTTP/1.1", "");
    for status in 200..600 {
        metrics.record(&RequestRecord { status, ..fixture.record() });
    }
    let report = metrics.report(1, &live_of(&snapshot(&["web"])));
    let slots: Vec<_> = report.series.slots_of(0).collect();
    assert!(slots.len() <= 64 + 5);
    let requests: u64 = slots.iter().map(|&slot| report.series.at(slot).requests).sum();
    assert_eq!(requests, 400);
}

/// A path of an Ingress that is changed many times leaves nothing behind, except for one more report of its last value.
#[test]
fn series_of_routes_that_are_gone_are_shown_once_more_and_forgotten() {
    let (options, mut metrics) = worker(|_| {});
    let fixture = Fixture::new("GET /a HTTP/1.1", "");
    let of_path = |path: &str| {
        let route = Route { rule: path.into(), ..host("web.example", "web").routes()[0].clone() };
        Host::new("t".into(), HostPattern::parse("web.example").unwrap(), vec![route])
    };
    let mut paths = |version: u64, path: &str| {
        let host = of_path(path);
        metrics.snapshot_changed();
        for _ in 0..version {
            metrics.record(&RequestRecord { host: Some(&host), route: host.routes().first(), ..fixture.record() });
        }
        let backend = crate::record::fixture::backend();
        let snapshot = Snapshot::default().apply(Delta::upsert([host.into(), backend.into()]));
        let report = metrics.report(version, &live_of(&snapshot));
        let text = rendered(&options, &snapshot, vec![report]);
        let value =
            |line: &String| (line.split("path=\"").nth(1).unwrap()[..2].to_owned(), line[line.len() - 1..].to_owned());
        series(&text, "requests{").iter().map(value).collect::<Vec<_>>()
    };
    let seen = |path: &str, count: &str| (path.to_owned(), count.to_owned());
    assert_eq!(paths(1, "/a"), [seen("/a", "1")]);
    assert_eq!(paths(2, "/b"), [seen("/a", "1"), seen("/b", "2")]);
    assert_eq!(paths(3, "/c"), [seen("/b", "2"), seen("/c", "3")]);
    for version in 4..=9 {
        assert_eq!(paths(version, "/d").len(), if version == 4 { 2 } else { 1 });
    }
}

#[test]
fn a_route_to_another_service_leaves_nothing_behind() {
    let (options, mut metrics) = worker(|_| {});
    let fixture = Fixture::new("GET /a HTTP/1.1", "");
    let mut old = fixture.backend.clone();
    old.origin = fairway_model::Origin::new("Service", "default", "old");
    let host = host("web.example", "web");
    metrics.record(&RequestRecord {
        host: Some(&host),
        route: host.routes().first(),
        backend: Some(&old),
        ..fixture.record()
    });
    metrics.record(&RequestRecord { host: Some(&host), route: host.routes().first(), ..fixture.record() });
    let snapshot = Snapshot::default().apply(Delta::upsert([host.into(), fixture.backend.clone().into()]));
    let live = live_of(&snapshot);
    let mut services = |_| {
        let text = rendered(&options, &snapshot, vec![metrics.report(2, &live)]);
        series(&text, "requests{").len()
    };
    assert_eq!([1, 2].map(&mut services), [2, 1]);
}

/// As in ingress-nginx: a host that only a pattern matches counts under its own name with the flag, and otherwise not at all.
#[test]
fn hosts_that_are_not_named_count_by_flag_and_are_bounded() {
    let fixture = |name: &str| {
        let mut fixture = Fixture::new("GET /a HTTP/1.1", "");
        fixture.bytes = format!("GET /a HTTP/1.1\r\nHost: {name}\r\n\r\n").into_bytes();
        fixture.head.clear();
        fixture.head.parse(&fixture.bytes, &crate::http::HeadLimits::default()).unwrap();
        let arrival = fairway_model::client::Arrival::new(
            "10.1.2.3:4567".parse().unwrap(),
            "127.0.0.1:8080".parse().unwrap(),
            fairway_model::Scheme::Http,
        );
        let settings = fairway_model::Settings::default();
        let mut rng = crate::random::Rng::from_seed(1);
        fixture.client.decide(&arrival, &fixture.head.view(&fixture.bytes), &settings, || rng.bits());
        fixture
    };
    let wild = host("*.wm.io", "web");
    let backend = crate::record::fixture::backend();
    let snapshot = Snapshot::default().apply(Delta::upsert([wild.clone().into(), backend.into()]));
    let live = live_of(&snapshot);
    let (_, mut without) = worker(|_| {});
    let (options, mut with) = worker(|options| {
        options.undefined_hosts = true;
        options.undefined_host_limit = 2;
    });
    let mut ask = |name: &str| {
        let fixture = fixture(name);
        let record = RequestRecord { host: Some(&wild), route: wild.routes().first(), ..fixture.record() };
        without.record(&record);
        with.record(&record);
    };
    ["A.wm.io:80", "a.wm.io", "b.wm.io", "c.wm.io", "b.wm.io", "d.wm.io"].into_iter().for_each(&mut ask);
    assert_eq!(
        series(&rendered(&options, &snapshot, vec![without.report(1, &live)]), "requests{"),
        Vec::<String>::new()
    );
    for _ in 0..2 {
        let text = rendered(&options, &snapshot, vec![with.report(1, &live)]);
        let hosts: Vec<_> = series(&text, "requests{")
            .iter()
            .map(|line| {
                assert!(line.contains("ingress=\"web\""), "{line}");
                let rest = line.split("host=\"").nth(1).unwrap();
                (rest.split('"').next().unwrap().to_owned(), line.rsplit(' ').next().unwrap().to_owned())
            })
            .collect();
        let expected = [("_", "3"), ("b.wm.io", "2"), ("d.wm.io", "1")];
        assert_eq!(hosts, expected.map(|(host, count)| (host.to_owned(), count.to_owned())));
    }
}

#[test]
fn a_page_of_a_thousand_ingresses_is_small() {
    let constant = ConstantLabels {
        namespace: "ingress-nginx".to_owned(),
        class: "k8s.io/ingress-nginx".to_owned(),
        pod: "ingress-nginx-controller-7d4b9c8f6d-abcde".to_owned(),
    };
    let size = |change: fn(&mut MetricOptions)| {
        let mut options = MetricOptions { constant: constant.clone(), ..MetricOptions::default() };
        change(&mut options);
        let mut metrics = WorkerMetrics::new(Arc::new(options.clone()));
        let snapshot = many(&mut metrics, 1000);
        let report = metrics.report(1, &live_of(&snapshot));
        rendered(&options, &snapshot, vec![report]).len()
    };
    let (standard, whole) = (size(|_| {}), size(full));
    assert!(standard < 4_000_000, "{standard}");
    assert!(whole > 5 * standard, "{whole} and {standard}");
}

#[test]
fn another_route_in_the_same_place_is_told_apart() {
    let (_, mut metrics) = worker(|_| {});
    let fixture = Fixture::new("GET /a HTTP/1.1", "");
    let mut place = host("one.example", "one");
    for next in ["two", "three"] {
        metrics.record(&RequestRecord { host: Some(&place), route: place.routes().first(), ..fixture.record() });
        place = host(&format!("{next}.example"), next);
        metrics.snapshot_changed();
    }
    metrics.record(&RequestRecord { host: Some(&place), route: place.routes().first(), ..fixture.record() });
    let report = metrics.report(1, &live_of(&snapshot(&["one", "two", "three"])));
    assert_eq!(report.series.len(), 3);
}

#[test]
fn connections_process_and_configuration_are_shown() {
    let (options, mut metrics) = worker(|_| {});
    metrics.connections.opened();
    metrics.connections.opened();
    metrics.connections.changed(Phase::Reading, Phase::Writing);
    metrics.connections.changed(Phase::Writing, Phase::Waiting);
    metrics.connections.changed(Phase::Waiting, Phase::Writing);
    metrics.connections.closed(Phase::Reading);
    metrics.upstream.reused = 4;
    let certificate = Certificate {
        name: "default/tls".into(),
        origin: fairway_model::Origin::new("Secret", "default", "tls"),
        fingerprint: "f00d".into(),
        not_after: 1_800_000_000,
        chain: Vec::new(),
        key: PrivateKey::default(),
    };
    let with = host("tls.example", "web").with_certificate(Some("default/tls".into()));
    let snapshot = Snapshot::default().apply(Delta::upsert([certificate.into(), with.into()]));
    let text = rendered(&options, &snapshot, vec![metrics.report(1, &live_of(&snapshot))]);
    for expected in [
        "nginx_ingress_controller_nginx_process_connections{C,state=\"active\"} 1",
        "nginx_ingress_controller_nginx_process_connections{C,state=\"writing\"} 1",
        "nginx_ingress_controller_nginx_process_connections_total{C,state=\"accepted\"} 2",
        "nginx_ingress_controller_nginx_process_connections_total{C,state=\"handled\"} 2",
        "nginx_ingress_controller_nginx_process_requests_total{C} 2",
        "nginx_ingress_controller_nginx_process_resident_memory_bytes{C} 5000000000",
        "nginx_ingress_controller_success{C} 2",
        "nginx_ingress_controller_errors{C} 1",
        "nginx_ingress_controller_config_hash{C} 9007199254740991",
        "nginx_ingress_controller_config_last_reload_successful{C} 1",
        "nginx_ingress_controller_config_last_reload_successful_timestamp_seconds{C} 1000.5",
        "nginx_ingress_controller_ssl_expire_time_seconds{C,class=\"nginx\",host=\"tls.example\",identifier=\"f00d\",\
         namespace=\"default\",secret_name=\"tls\"} 1800000000",
        "fairway_snapshot_version{C} 7",
        "fairway_upstream_reused_total{C} 4",
        "fairway_routes_without_backend{C} 1",
        "fairway_findings{C,severity=\"error\",reason=\"ServiceNotFound\"} 2",
    ] {
        assert!(text.replace(CONSTANT, "C").lines().any(|line| line == expected), "{expected} in\n{text}");
    }
    assert!(series(&text, "build_info{")[0].ends_with("} 1"));
}

#[test]
fn the_text_is_well_formed() {
    let (options, mut metrics) = worker(|_| {});
    metrics.record(&Fixture::new("GET /a HTTP/1.1", "").record());
    let snapshot = snapshot(&["web"]);
    let text = rendered(&options, &snapshot, vec![metrics.report(1, &live_of(&snapshot))]);
    let mut seen = std::collections::HashSet::new();
    let mut names = std::collections::HashSet::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            assert!(names.insert(rest.split(' ').next().unwrap().to_owned()), "{line} twice");
        } else if !line.starts_with('#') {
            let (key, value) = line.rsplit_once(' ').unwrap();
            assert!(seen.insert(key.to_owned()), "{key} twice");
            value.parse::<f64>().unwrap();
        }
    }
}

/// Routes of many Ingresses, each asked for once.
fn many(metrics: &mut WorkerMetrics, count: usize) -> Snapshot {
    let names: Vec<_> = (0..count).map(|number| format!("web-{number}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let backend = crate::record::fixture::backend();
    let snapshot = snapshot(&names).apply(Delta::upsert([backend.into()]));
    let fixture = Fixture::new("GET /a HTTP/1.1", "");
    for host in snapshot.hosts() {
        metrics.record(&RequestRecord { host: Some(host), route: host.routes().first(), ..fixture.record() });
    }
    snapshot
}

/// The length in front of each message, and whether the messages fill the whole.
fn messages(mut bytes: &[u8]) -> usize {
    let mut count = 0;
    while !bytes.is_empty() {
        let (mut length, mut shift) = (0, 0);
        while let Some((&byte, rest)) = bytes.split_first() {
            bytes = rest;
            length |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                break;
            }
        }
        bytes = bytes.get(length..).expect("a message as long as it says");
        count += 1;
    }
    count
}

#[test]
fn protobuf_is_written_in_pages_of_whole_messages() {
    let (options, mut metrics) = worker(|options| {
        full(options);
        options.native = NativeBuckets::new(1.1, 100);
    });
    let snapshot = many(&mut metrics, 1000);
    let report = metrics.report(1, &live_of(&snapshot));
    let mut pages = exposition(&options, &snapshot, vec![report]).pages(MetricFormat::Protobuf);
    let (mut count, mut longest, mut requests) = (0, 0, 0);
    while let Some(page) = pages.page() {
        count += messages(page);
        longest = longest.max(page.len());
        requests += page.windows(8).filter(|window| *window == b"requests").count();
    }
    assert!(longest < 70_000, "{longest}");
    assert!(count > 100 && requests > 1, "{count} messages");
}

#[test]
fn text_of_any_length_is_written_in_little_memory() {
    let (options, mut metrics) = worker(full);
    let snapshot = many(&mut metrics, 1000);
    let report = metrics.report(1, &live_of(&snapshot));
    let mut pages = exposition(&options, &snapshot, vec![report]).pages(MetricFormat::Text);
    let (mut length, mut longest, mut requests) = (0, 0, 0);
    let written = measure(|| {
        while let Some(page) = pages.page() {
            length += page.len();
            longest = longest.max(page.len());
            requests += std::str::from_utf8(page).unwrap().matches("nginx_ingress_controller_requests{").count();
        }
    });
    assert_eq!(requests, 1000);
    assert!(length > 20_000_000, "{length}");
    assert!(longest < 66_000, "{longest}");
    assert!(written.bytes_max < 300_000, "{written:?}");
}

#[test]
fn a_label_set_takes_little_memory() {
    const COUNT: usize = 1000;
    let (_, mut metrics) = worker(|_| {});
    let snapshot = many(&mut metrics, 1);
    let grown = measure(|| drop(many(&mut metrics, COUNT)));
    // The memory of the routes themselves is subtracted.
    let each = usize::try_from(grown.bytes_current).unwrap() / COUNT;
    assert!(each < 1200, "{each}");
    let live = live_of(&many(&mut metrics, COUNT));
    let mut report = None;
    let copied = measure(|| report = Some(metrics.report(1, &live)));
    assert!(copied.count_total < 10, "one piece of memory each, not one for each label set: {copied:?}");
    assert!(usize::try_from(copied.bytes_current).unwrap() / COUNT < 500, "{copied:?}");
    drop((snapshot, report));
}

#[test]
fn routes_without_backend_are_those_that_answer_503() {
    let orphans = |resources: Vec<Resource>| {
        let snapshot = Snapshot::default().apply(Delta::upsert(resources));
        let (options, mut metrics) = worker(|_| {});
        let text = rendered(&options, &snapshot, vec![metrics.report(1, &live_of(&snapshot))]);
        let line = text.lines().find(|line| line.starts_with("fairway_routes_without_backend{")).unwrap();
        line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
    };
    let set = |addresses: &[&str]| {
        let list = addresses.iter().map(|address| fairway_model::Endpoint::ready(address.parse().unwrap())).collect();
        let endpoints = fairway_model::Endpoints::Addresses(list);
        Resource::from(fairway_model::EndpointSet { backend: "default/web:80".into(), endpoints })
    };
    let backend = || Resource::from(crate::record::fixture::backend());
    let host = || Resource::from(host("shop.example", "web"));
    assert_eq!(orphans(vec![host()]), 1, "no backend of this name");
    assert_eq!(orphans(vec![host(), backend(), set(&[])]), 1, "how a Service that does not exist is translated");
    assert_eq!(orphans(vec![host(), backend(), set(&["10.0.0.1:80"])]), 0);
}

/// Everything that `/metrics` can show, with what an operator needs to know about it.
#[test]
fn the_reference_names_every_metric() {
    let (standard, _) = worker(|_| {});
    let (options, mut metrics) = worker(full);
    let fixture = Fixture::new("GET /a HTTP/1.1", "");
    let refused = crate::record::Try { reason: Some(Reason::ConnectRefused), ..one_try("10.0.0.2:80", 502) };
    metrics.record(&fixture.record());
    let cause = Some(Reason::ConnectRefused.into());
    metrics.record(&RequestRecord { cause, tries: &[refused], ..fixture.record() });
    let certificate = Certificate {
        name: "default/tls".into(),
        origin: fairway_model::Origin::new("Secret", "default", "tls"),
        fingerprint: "f00d".into(),
        not_after: 1_800_000_000,
        chain: Vec::new(),
        key: PrivateKey::default(),
    };
    let with = host("tls.example", "web").with_certificate(Some("default/tls".into()));
    let snapshot = Snapshot::default().apply(Delta::upsert([certificate.into(), with.into()]));
    let mut report = metrics.report(1, &live_of(&snapshot));
    report.streams.push(("tcp-5432".into(), "TCP", StreamCounts::default()));
    let text = rendered(&options, &snapshot, vec![report]);
    let mut page = "# Metrics\n\nGenerated from the code in `crates/proxy/src/metrics`; `UPDATE_DOCS=1 cargo test -p fairway-proxy --lib \
         reference` writes it.\n\n`/metrics` on the health port (`--healthz-port`, 10254) has these metrics. Those of ingress-nginx keep \
         their names, meaning and labels, so its dashboards and alerts continue to work; the names of all others begin with `fairway_`. \
         Where the third column says `full`, the metric is shown only with `--metrics-detail full`. Reasons are listed in \
         [failure reasons](failure-reasons.md); rules and a dashboard that use these metrics are in [alerts](alerts.md).\n\n\
         The label `namespace` is that of the Ingress, route or Secret, and the first three labels are the same for all metrics of a pod. \
         Prometheus shows `namespace` as `exported_namespace` if it has its own label of this name for the pod, unless `honorLabels` is set.\n\n\
         For an HTTPRoute or GRPCRoute, `ingress` is the name of the route, `service` that of the Service or XBackend, and `path` that of \
         the match; an Ingress and a route that agree in all labels are one series. As for Ingresses, requests are counted per host only for hosts that the configuration names; with \
         `--metrics-per-undefined-host` also those for hosts that only a wildcard matches, or a route and listener without a hostname.\n\n\
         Series of a removed route appear in one more scrape and then disappear.\n\n\
         | metric | type | shown | labels | meaning |\n| --- | --- | --- | --- | --- |\n"
        .to_owned();
    page.push_str(&rows(&text, |name, kind| {
        match (kind, standard.form(name.strip_prefix(PREFIX).unwrap_or_default())) {
            ("histogram", Form::Hidden) => "full",
            ("histogram", Form::Sum) => "sum and count; buckets: full",
            ("histogram", Form::Buckets) => "four bounds; all: full",
            _ => "always",
        }
    }));
    page.push_str(
        "\n## Channel between controller and proxies\n\nWhere they are separate processes, `fairway controller` shows how its proxies \
         stand, on port 10255, and `fairway proxy` how it stands to its controller.\n\n\
         | metric | type | shown by | labels | meaning |\n| --- | --- | --- | --- | --- |\n",
    );
    for (shown, end) in [
        (
            "`fairway controller`",
            ChannelFigures::Controller(ControllerEnd {
                slowest: Some(("p".to_owned(), 0.0)),
                ..ControllerEnd::default()
            }),
        ),
        ("`fairway proxy`", ChannelFigures::Proxy(ProxyEnd::default())),
    ] {
        let (mut out, mut constant) = (text::Text::default(), text::Labels::default());
        ["controller_class", "controller_namespace", "controller_pod"].iter().for_each(|name| constant.push(name, ""));
        end.write(&mut out, &constant);
        page.push_str(&rows(std::str::from_utf8(out.page()).unwrap(), |_, _| shown));
    }
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/metrics.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == page,
        "docs/metrics.md is out of date: run UPDATE_DOCS=1 cargo test -p fairway-proxy --lib reference"
    );
}

/// A row for each metric of a text. `shown` has its name and type.
fn rows(text: &str, shown: impl Fn(&str, &str) -> &'static str) -> String {
    let mut rows = String::new();
    let mut help = "";
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ').unwrap().1;
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            let sample =
                text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name} has no sample"));
            let labels = sample.split_once('{').map_or("", |(_, rest)| rest.rsplit_once('}').unwrap().0);
            let names: Vec<_> =
                labels.split("\",").filter_map(|label| label.split_once("=\"")).map(|(name, _)| name).collect();
            rows.push_str(&format!("| `{name}` | {kind} | {} | {} | {help} |\n", shown(name, kind), names.join(", ")));
        }
    }
    rows
}
