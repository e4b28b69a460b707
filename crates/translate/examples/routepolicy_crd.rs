//! Prints the CRD of RoutePolicy, for `cargo xtask gen`.

use fairway_translate::gateway::schema;

fn main() {
    print!("{}", schema::crd_yaml(&schema::crd()));
}
