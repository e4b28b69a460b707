//! Prints the CRD of GatewayParameters, for `cargo xtask gen`.

use fairway_translate::gateway::schema;

fn main() {
    print!("{}", schema::crd_yaml(&schema::parameters_crd()));
}
