//! The log of the process itself, on standard error. Requests are logged separately, in the access log.

use tracing_subscriber::EnvFilter;

mod repeat;

use repeat::Once;

/// Libraries whose messages don't help an operator while nothing is wrong. The controller itself reports a failed attempt of the API
/// client, once.
const QUIET: &str = "kube=warn,kube_client=warn,kube_client::client::builder=off,hyper=warn,hyper_util=warn,tower=warn,rustls=warn,h2=warn,hickory_proto=warn";

/// The format of a line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Form {
    Text,
    #[cfg_attr(
        not(any(feature = "cluster", test)),
        expect(dead_code, reason = "only the roles in a cluster have the option")
    )]
    Json,
}

/// Starts the log. `verbosity` is the number after `-v`; `quiet` omits normal messages, for a terminal that shows other output. The
/// variable `RUST_LOG` takes precedence over both.
pub(crate) fn start(form: Form, verbosity: i64, quiet: bool) {
    let level = match verbosity {
        i64::MIN..=1 if quiet => "warn",
        i64::MIN..=1 => "info",
        2..=4 => "info,fairway=debug,fairway_controller=debug,fairway_translate=debug",
        5..=8 => "debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(format!("{level},{QUIET}")));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let ansi = form == Form::Text && std::io::IsTerminal::is_terminal(&std::io::stderr());
    match form {
        Form::Json => builder.json().flatten_event(true).map_event_format(|json| Once::new(json, form)).init(),
        Form::Text => builder.with_ansi(ansi).map_event_format(|text| Once::new(text.with_ansi(ansi), form)).init(),
    }
}
