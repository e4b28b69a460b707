//! Geographic variables from MaxMind files, in the log, in fields and in conditions.

#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::support::log::{Lines, logging};
use crate::support::{HOST, TestProxy, backend, filtered, forward, host, route};
use fairway_model::{
    FieldEdit, Filter, ForwardPolicy, GeoSettings, Resource, Respond, Settings, Snippet, SnippetEdits, SnippetIf,
    SnippetStep, SnippetTest, Template,
};
use fairway_testkit::{Origin, eventually};

/// A value of a database.
enum Value {
    Map(Vec<(&'static str, Self)>),
    List(Vec<Self>),
    Text(&'static str),
    Short(u16),
    Number(u32),
    Long(u64),
    Fraction(f64),
}

use Value::{Fraction, List, Long, Map, Number, Short, Text};

impl Value {
    fn write(&self, out: &mut Vec<u8>) {
        let control = |kind: u8, size: usize, out: &mut Vec<u8>| match kind {
            1..=7 => out.push(kind << 5 | u8::try_from(size).unwrap()),
            _ => out.extend([u8::try_from(size).unwrap(), kind - 7]),
        };
        match self {
            Self::Map(pairs) => {
                control(7, pairs.len(), out);
                for (key, value) in pairs {
                    Text(key).write(out);
                    value.write(out);
                }
            }
            Self::List(values) => {
                control(11, values.len(), out);
                values.iter().for_each(|value| value.write(out));
            }
            Self::Text(text) => {
                match text.len().checked_sub(29) {
                    None => control(2, text.len(), out),
                    Some(more) => {
                        control(2, 29, out);
                        out.push(u8::try_from(more).unwrap());
                    }
                }
                out.extend_from_slice(text.as_bytes());
            }
            Self::Short(number) => {
                control(5, 2, out);
                out.extend(number.to_be_bytes());
            }
            Self::Long(number) => {
                control(9, 8, out);
                out.extend(number.to_be_bytes());
            }
            Self::Number(number) => {
                control(6, 4, out);
                out.extend(number.to_be_bytes());
            }
            Self::Fraction(number) => {
                control(3, 8, out);
                out.extend(number.to_be_bytes());
            }
        }
    }
}

/// Writes a database in which 127.0.0.0/8 has this entry (MaxMind DB File Format 2.0).
fn write(path: &Path, kind: &'static str, entry: &Value) {
    const NODES: u32 = 8;
    let mut file = Vec::new();
    for bit in 0..NODES {
        // The data section begins 16 bytes after the tree, and so do the values of pointers to it.
        let next = if bit + 1 == NODES { NODES + 16 } else { bit + 1 };
        let (left, right) = if 127u8 >> (7 - bit) & 1 == 1 { (NODES, next) } else { (next, NODES) };
        file.extend_from_slice(&left.to_be_bytes()[1..]);
        file.extend_from_slice(&right.to_be_bytes()[1..]);
    }
    file.extend([0; 16]);
    entry.write(&mut file);
    file.extend_from_slice(b"\xab\xcd\xefMaxMind.com");
    Map(vec![
        ("binary_format_major_version", Short(2)),
        ("binary_format_minor_version", Short(0)),
        ("build_epoch", Long(1_700_000_000)),
        ("database_type", Text(kind)),
        ("description", Map(vec![("en", Text("a test"))])),
        ("ip_version", Short(4)),
        ("languages", List(vec![Text("en")])),
        ("node_count", Number(NODES)),
        ("record_size", Short(24)),
    ])
    .write(&mut file);
    // Replaced in one step, as updates of such files are.
    let new = path.with_extension("new");
    std::fs::write(&new, file).unwrap();
    std::fs::rename(new, path).unwrap();
}

fn city(name: &'static str) -> Value {
    Map(vec![
        ("city", Map(vec![("names", Map(vec![("en", Text(name))]))])),
        ("country", Map(vec![("iso_code", Text("DE"))])),
        ("location", Map(vec![("latitude", Fraction(52.5)), ("metro_code", Number(7))])),
        ("subdivisions", List(vec![Map(vec![("iso_code", Text("BE"))])])),
    ])
}

fn folder(name: &str) -> std::path::PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

fn with(folder: &Path, editions: &[&str], reload: Option<Duration>) -> Resource {
    let editions = editions.iter().map(|edition| (*edition).into()).collect();
    let geo = Some(GeoSettings { directory: folder.to_str().unwrap().into(), editions, reload });
    Settings { geo, ..Settings::default() }.into()
}

#[tokio::test]
async fn variables_have_the_values_of_the_clients_address() {
    let folder = folder("geo-values");
    write(&folder.join("GeoLite2-City.mmdb"), "GeoLite2-City", &city("Berlin"));
    let asn =
        Map(vec![("autonomous_system_number", Number(64496)), ("autonomous_system_organization", Text("Example"))]);
    write(&folder.join("GeoLite2-ASN.mmdb"), "GeoLite2-ASN", &asn);
    let (origin, lines) = (Origin::start("a"), Lines::default());
    let set = |name: &str, value: &str| FieldEdit::set(name, value).unwrap();
    let block = SnippetIf {
        test: SnippetTest::Equal(Template::parse("$geoip2_city_country_code:$arg_no"), Template::parse("DE:1")),
        steps: vec![SnippetStep::Respond(Respond::page(403))],
        edits: SnippetEdits::default(),
    };
    let snippet = Snippet { steps: vec![SnippetStep::If(Box::new(block))], ..Snippet::default() };
    let filters = vec![
        Filter::EditRequest(vec![set("X-City", "$geoip2_city"), set("X-None", "$geoip2_isp")]),
        Filter::Snippet(Arc::new(snippet)),
    ];
    let mut resources = backend("web", &[origin.address()]);
    resources.push(host(HOST, vec![filtered(route("/", forward("web", ForwardPolicy::default())), filters)]));
    resources.push(with(&folder, &["GeoLite2-City", "GeoLite2-ASN", "GeoIP2-ISP"], None));
    let format = "$geoip2_city $geoip2_region_code $geoip2_subregion_code $geoip2_latitude $geoip2_dma_code $geoip2_asn $geoip2_org \
        $geoip2_country_code $geoip2_isp";
    let proxy = TestProxy::start_with(resources, logging(&lines, format));
    let mut client = proxy.connect().await;
    let echo = client.get(HOST, "/").await.echo();
    assert_eq!((echo.header("x-city"), echo.header("x-none")), (Some("Berlin"), None));
    assert_eq!(lines.after(1).await, ["Berlin BE - 52.50000 7 64496 Example - -"]);
    assert_eq!(client.get(HOST, "/?no=1").await.status, 403);
}

#[tokio::test]
async fn a_file_that_is_replaced_is_read_again_and_one_that_is_broken_has_no_values_or_the_last_ones() {
    let folder = folder("geo-reload");
    let path = folder.join("GeoLite2-City.mmdb");
    std::fs::write(&path, "no database").unwrap();
    let origin = Origin::start("a");
    let set = |name, value| FieldEdit::set(name, value).unwrap();
    let edits = vec![set("X-City", "$geoip2_city"), set("X-Asn", "$geoip2_asn")];
    let mut resources = backend("web", &[origin.address()]);
    let to = forward("web", ForwardPolicy::default());
    resources.push(host(HOST, vec![filtered(route("/", to), vec![Filter::EditRequest(edits)])]));
    resources.push(with(&folder, &["GeoLite2-City", "GeoLite2-ASN"], Some(Duration::from_millis(20))));
    let proxy = &TestProxy::start(resources);
    // Boxed: the stack of a test has no room for a client in a loop.
    let field = |name: &'static str| {
        Box::pin(async move { proxy.connect().await.get(HOST, "/").await.echo().header(name).map(str::to_owned) })
    };
    let city_of = || field("x-city");
    assert_eq!(city_of().await, None);
    write(&path, "GeoLite2-City", &city("Paris"));
    eventually("the new file", || async { city_of().await.as_deref() == Some("Paris") }).await;
    // Half of a copy; once the other file has been read, so has this one.
    std::fs::write(&path, "half").unwrap();
    let asn = Map(vec![("autonomous_system_number", Number(64496))]);
    write(&folder.join("GeoLite2-ASN.mmdb"), "GeoLite2-ASN", &asn);
    eventually("the other file", || async { field("x-asn").await.as_deref() == Some("64496") }).await;
    assert_eq!(city_of().await.as_deref(), Some("Paris"));
}
