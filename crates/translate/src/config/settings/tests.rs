use super::*;

fn config(data: &[(&str, &str)]) -> GlobalConfig {
    let data = data.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let mut diagnostics = Vec::new();
    let config = GlobalConfig::read(&Origin::new("ConfigMap", "a", "b"), &data, &mut diagnostics);
    assert!(diagnostics.is_empty(), "{diagnostics:?}");
    config
}

fn settings_of(config: &GlobalConfig) -> Settings {
    let origin = Origin::new("ConfigMap", "a", "b");
    let sources = SettingsSources { config, origin: &origin, add_headers: None, proxy_set_headers: None };
    settings(&sources, &Options::default(), &mut Vec::new())
}

#[test]
fn without_a_config_map_the_defaults_of_the_model_hold() {
    assert_eq!(settings_of(&GlobalConfig::default()), Settings::default());
}

#[test]
fn limits_are_kept_within_reason() {
    let settings = settings_of(&config(&[
        ("large-client-header-buffers", "4000000000 1g"),
        ("client-header-timeout", "0"),
        ("worker-processes", "4000000000"),
    ]));
    assert_eq!((settings.head_buffers.line, settings.head_buffers.total), (1 << 20, 1 << 20));
    assert_eq!(settings.header_timeout, Duration::from_secs(60));
    assert_eq!(settings.workers, Some(1024));
}

#[test]
fn hsts_can_be_turned_off() {
    assert_eq!(settings_of(&config(&[("hsts", "false")])).strict_transport_security, None);
}

#[test]
fn listeners_have_stable_names_and_no_doubles() {
    let options = Options {
        http: vec!["0.0.0.0:80".parse().unwrap(), "[::]:80".parse().unwrap(), "0.0.0.0:80".parse().unwrap()],
        https: vec!["[::]:443".parse().unwrap()],
        ..Options::default()
    };
    let table = TableName::from("ingress");
    let told = |config: &GlobalConfig| -> Vec<String> {
        listeners(config, &options, &table).iter().map(|one| format!("{} {}", one.name, one.address)).collect()
    };
    assert_eq!(told(&GlobalConfig::default()), ["http 0.0.0.0:80", "http-2 [::]:80", "https [::]:443"]);
    assert_eq!(told(&config(&[("disable-ipv6", "true")])), ["http 0.0.0.0:80", "https 0.0.0.0:443"]);
    assert_eq!(told(&config(&[("bind-address", "127.0.0.1")])), ["http 127.0.0.1:80", "https 127.0.0.1:443"]);
    let among_all = config(&[("bind-address", "192.0.2.1,0.0.0.0,2001:db8::1")]);
    let expected = ["http 0.0.0.0:80", "http-2 [2001:db8::1]:80", "https 0.0.0.0:443", "https-2 [2001:db8::1]:443"];
    assert_eq!(told(&among_all), expected);
}

#[test]
fn fields_that_belong_to_the_framing_are_refused() {
    let key = ObjectKey::new(Kind::ConfigMap, "a", "add");
    let data: BTreeMap<String, String> = [
        ("Transfer-Encoding", "chunked"),
        ("HOST", "x"),
        ("Bad\r\nName", "x"),
        ("X-Lines", "a\r\nSet-Cookie: b"),
        ("X-Nul", "a\0b"),
        ("X-Good", " value\n"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    let mut diagnostics = Vec::new();
    assert_eq!(fields(Some((&key, &data)), &mut diagnostics), [FieldEdit::set("X-Good", "value").unwrap()]);
    assert_eq!(diagnostics.len(), 5);
}

#[test]
fn variables_that_nginx_has_are_no_mistake() {
    let format = "$proxy_protocol_addr $connection_time $nobody $nobody $ssl_protocol $sent_trailer_x";
    let data = [("log-format-upstream".to_owned(), format.to_owned())].into();
    let origin = Origin::new("ConfigMap", "a", "b");
    let config = GlobalConfig::read(&origin, &data, &mut Vec::new());
    let sources = SettingsSources { config: &config, origin: &origin, add_headers: None, proxy_set_headers: None };
    let mut found = Vec::new();
    settings(&sources, &Options::default(), &mut found);
    let warned: Vec<_> = found.iter().filter(|found| found.severity == Severity::Warning).collect();
    assert!(warned.len() == 1 && warned[0].value == "nobody", "{found:?}");
}
