//! Prints the CRD of RoutePolicy, for `cargo xtask gen`.

fn main() {
    print!("{}", fairway_translate::gateway::schema::crd_yaml());
}
