//! Gives Services of type LoadBalancer an address from a pool, as MetalLB would.
