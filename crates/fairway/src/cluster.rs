//! The cluster that a command reads: that of a kubeconfig, found as kubectl finds it.

use clap::ArgMatches;
use fairway_controller::ApiConfig;

use crate::flags::Flags;

/// The cluster named on the command line, if any.
pub(crate) fn asked_for(matches: &ArgMatches, flags: &Flags) -> Option<ApiConfig> {
    let named = matches.contains_id("context") || flags.is_set("kubeconfig") || flags.is_set("apiserver-host");
    named.then(|| api(matches, flags))
}

/// The cluster named on the command line, else that of the user's own kubeconfig.
pub(crate) fn api(matches: &ArgMatches, flags: &Flags) -> ApiConfig {
    let host = flags.text("apiserver-host");
    ApiConfig {
        kubeconfig: flags.text("kubeconfig").map(Into::into),
        own_kubeconfig: host.is_none(),
        context: matches.get_one::<String>("context").cloned(),
        certificate_authority: flags.text("certificate-authority").map(Into::into),
        host,
    }
}
