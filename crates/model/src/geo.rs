//! Geographic variables under the names that ingress-nginx gives them: which database has the value of each, and where.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The databases to look values up in.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct GeoSettings {
    /// The directory of their files, each named after its edition, with `.mmdb`.
    pub directory: Box<str>,
    /// Their editions, such as `GeoLite2-City` (`--maxmind-edition-ids`).
    pub editions: Vec<Box<str>>,
    /// How often to look for new files (`geoip2-autoreload-in-minutes`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reload: Option<Duration>,
}

/// The subject of a database.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum GeoSubject {
    /// Countries.
    Country,
    /// Cities.
    City,
    /// Autonomous systems.
    Asn,
    /// Providers.
    Isp,
    /// Kinds of connections.
    Connection,
    /// Anonymous clients.
    Anonymous,
}

impl GeoSubject {
    /// All editions.
    pub const EDITIONS: &'static [(&'static str, Self)] = &[
        ("GeoLite2-Country", Self::Country),
        ("GeoIP2-Country", Self::Country),
        ("GeoLite2-City", Self::City),
        ("GeoIP2-City", Self::City),
        ("GeoLite2-ASN", Self::Asn),
        ("GeoIP2-ASN", Self::Asn),
        ("GeoIP2-ISP", Self::Isp),
        ("GeoIP2-Connection-Type", Self::Connection),
        ("GeoIP2-Anonymous-IP", Self::Anonymous),
    ];

    /// The subject of an edition's database.
    pub fn of_edition(edition: &str) -> Option<Self> {
        Self::EDITIONS.iter().find(|(name, _)| *name == edition).map(|(_, subject)| *subject)
    }
}

/// A step within an entry of a database.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum GeoStep {
    /// A key of a map.
    Key(&'static str),
    /// A place in a list.
    Index(usize),
}

/// Where a value is found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct GeoPlace {
    /// The database.
    pub subject: GeoSubject,
    /// The way to the value within the entry of an address.
    pub steps: &'static [GeoStep],
}

macro_rules! step {
    ($index:literal) => {
        GeoStep::Index($index)
    };
    ($key:ident) => {
        GeoStep::Key(stringify!($key))
    };
}

macro_rules! geo {
    ($($variant:ident = $name:literal, $($subject:ident [$($step:tt)+]),+;)+) => {
        /// A geographic variable.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub enum GeoVariable {
            $(#[doc = concat!("`$", $name, "`")] $variant,)+
        }

        impl GeoVariable {
            /// All names.
            pub const NAMES: &'static [&'static str] = &[$($name),+];

            /// The variable with this name, given without `$`.
            pub fn named(name: &str) -> Option<Self> {
                Some(match name {
                    $($name => Self::$variant,)+
                    _ => return None,
                })
            }

            /// Where its value is found; the first database that is present counts.
            pub const fn places(self) -> &'static [GeoPlace] {
                match self {
                    $(Self::$variant => &[$(GeoPlace { subject: GeoSubject::$subject, steps: &[$(step!($step)),+] }),+],)+
                }
            }
        }
    };
}

geo! {
    CountryCode = "geoip2_country_code", Country [country iso_code];
    CountryName = "geoip2_country_name", Country [country names en];
    CountryId = "geoip2_country_geoname_id", Country [country geoname_id];
    ContinentCode = "geoip2_continent_code", Country [continent code];
    ContinentName = "geoip2_continent_name", Country [continent names en];
    ContinentId = "geoip2_continent_geoname_id", Country [continent geoname_id];
    CityCountryCode = "geoip2_city_country_code", City [country iso_code];
    CityCountryName = "geoip2_city_country_name", City [country names en];
    CityCountryId = "geoip2_city_country_geoname_id", City [country geoname_id];
    City = "geoip2_city", City [city names en];
    CityId = "geoip2_city_geoname_id", City [city geoname_id];
    PostalCode = "geoip2_postal_code", City [postal code];
    DmaCode = "geoip2_dma_code", City [location metro_code];
    Latitude = "geoip2_latitude", City [location latitude];
    Longitude = "geoip2_longitude", City [location longitude];
    TimeZone = "geoip2_time_zone", City [location time_zone];
    RegionCode = "geoip2_region_code", City [subdivisions 0 iso_code];
    RegionName = "geoip2_region_name", City [subdivisions 0 names en];
    RegionId = "geoip2_region_geoname_id", City [subdivisions 0 geoname_id];
    SubregionCode = "geoip2_subregion_code", City [subdivisions 1 iso_code];
    SubregionName = "geoip2_subregion_name", City [subdivisions 1 names en];
    SubregionId = "geoip2_subregion_geoname_id", City [subdivisions 1 geoname_id];
    CityContinentCode = "geoip2_city_continent_code", City [continent code];
    CityContinentName = "geoip2_city_continent_name", City [continent names en];
    CityContinentId = "geoip2_city_continent_geoname_id", City [continent geoname_id];
    AsNumber = "geoip2_asn", Asn [autonomous_system_number], Isp [autonomous_system_number];
    AsOrganization = "geoip2_org", Asn [autonomous_system_organization], Isp [autonomous_system_organization];
    Isp = "geoip2_isp", Isp [isp];
    IspOrganization = "geoip2_isp_org", Isp [organization];
    ConnectionType = "geoip2_connection_type", Connection [connection_type];
    IsAnonymous = "geoip2_is_anon", Anonymous [is_anonymous];
    IsAnonymousVpn = "geoip2_is_anonymous_vpn", Anonymous [is_anonymous_vpn];
    IsHosting = "geoip2_is_hosting_provider", Anonymous [is_hosting_provider];
    IsPublicProxy = "geoip2_is_public_proxy", Anonymous [is_public_proxy];
    IsTorExit = "geoip2_is_tor_exit_node", Anonymous [is_tor_exit_node];
}
