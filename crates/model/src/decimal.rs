//! Appends numbers and addresses to a buffer as text. The general formatter costs several times as much, and these are
//! written for every request.

use std::fmt::Display;
use std::io::Write;
use std::net::IpAddr;

/// Appends a number.
pub fn number(value: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = value;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Appends an address without brackets. An IPv4 address mapped into IPv6 is an IPv4 address.
pub fn ip(address: IpAddr, out: &mut Vec<u8>) {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            number(a.into(), out);
            for octet in [b, c, d] {
                out.push(b'.');
                number(octet.into(), out);
            }
        }
        IpAddr::V6(v6) => display(&v6, out),
    }
}

/// Appends a displayable value.
pub fn display(value: &impl Display, out: &mut Vec<u8>) {
    let written = write!(out, "{value}");
    debug_assert!(written.is_ok(), "writing to a vector cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn agrees_with_the_general_formatter(value in any::<u64>(), v4 in any::<u32>(), v6 in any::<u128>()) {
            let mut out = Vec::new();
            number(value, &mut out);
            out.push(b' ');
            ip(IpAddr::V4(v4.into()), &mut out);
            out.push(b' ');
            ip(IpAddr::V6(v6.into()), &mut out);
            let expected = format!("{value} {} {}", IpAddr::V4(v4.into()), IpAddr::V6(v6.into()).to_canonical());
            prop_assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }
}
