use super::*;

fn faulty(name: &str, text: &str) -> String {
    fault(name, text).unwrap_or_else(|| panic!("{text} is read")).to_string()
}

#[test]
fn what_people_wrote_is_read() {
    for text in [
        "proxy_set_header Accept-Encoding \"\";\nsub_filter '</head>' '<link rel=\"stylesheet\" type=\"text/css\" href=\"https://x/y.css\"></head>';\nsub_filter_once on;",
        "more_set_headers \"X-Frame-Options: DENY\" \"X-Content-Type-Options: nosniff\";",
        "more_clear_headers \"Server\" 'X-Powered-By';",
        "more_set_headers -s '404 500' -t text/html 'X-Error: $status';",
        "add_header Strict-Transport-Security \"max-age=31536000\" always;",
        "proxy_hide_header X-Frame-Options;\nproxy_set_header X-Forwarded-Proto https;",
        "if ($http_user_agent ~* \"(bot|crawler)\") { return 403; }",
        "if ($host = 'old.example') {\n  return 301 https://new.example$request_uri;\n}",
        "set $cors '';\nif ($http_origin ~ '^https://(.*)\\.example$') { set $cors 'true'; }\nif ($cors = 'true') { add_header Access-Control-Allow-Origin $http_origin always; }",
        "limit_except GET { deny all; }",
        "allow 10.0.0.0/8; allow 192.0.2.1; deny all;",
        "rewrite ^/old/(.*)$ /new/$1 break;",
        "rewrite ^ https://$host/x permanent;",
        "proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection \"upgrade\";",
        "chunked_transfer_encoding off; proxy_buffering off; log_not_found off; access_log off; server_tokens off;",
        "default_type application/json; return 200 '{\"status\":\"ok\"}';",
        "more_set_input_headers \"X-User: $remote_addr\"; real_ip_header CF-Connecting-IP; expires 1h; etag off;",
        r#"default_type text/plain; return 200 "User-agent: *\nDisallow: /\n";"#,
        "sub_filter '</head>' '<i>\n</i></head>';",
        "if ($request_method !~ ^(GET|HEAD)$) { return 405; } if ($cookie_beta) { set $x 1; }",
    ] {
        assert_eq!(fault("configuration-snippet", text), None, "{text}");
        assert!(!words("configuration-snippet", text).is_empty(), "{text}");
    }
    let http = "map $http_upgrade $up { default upgrade; '' close; }\ngeo $near { default 0; 10.0.0.0/8 1; }";
    assert_eq!(fault("http-snippet", http), None);
    for text in [r#"map $a $b { return "x\n"; }"#, r#"map $a $b { "k\n" x; }"#, r#"geo $b { default "x\n"; }"#] {
        faulty("http-snippet", text);
    }
    assert_eq!(fault("server-snippet", "proxy_ssl_name a.example; proxy_ssl_server_name on;"), None);
    assert_eq!(fault("auth-snippet", "proxy_set_header X-Forwarded-Method $request_method;"), None);
    assert_eq!(fault("main-snippet", "worker_rlimit_nofile 1024;"), None);
    assert_eq!(fault("configuration-snippet", "# nothing"), None);
}

#[test]
fn a_finding_names_line_directive_and_what_to_use_instead() {
    for (name, text, expected) in [
        (
            "configuration-snippet",
            "add_header A b;\nproxy_pass http://x;",
            "line 2: proxy_pass: it is not read; use a path of an Ingress with a Service, or a Service of type ExternalName",
        ),
        (
            "configuration-snippet",
            "add_headers A b;",
            "line 1: add_headers: it is not among the directives that are read; did you mean add_header?",
        ),
        (
            "configuration-snippet",
            "if ($x) {\n proxy_set_header A b;\n}",
            "line 2: proxy_set_header: nginx does not allow it in `if`; set a variable there, and the field outside",
        ),
        ("configuration-snippet", "map $a $b { }", "line 1: map: nginx does not allow it in `location`"),
        ("configuration-snippet", "add_header A;", "line 1: add_header: expected 2 to 3 arguments, not 1"),
        (
            "configuration-snippet",
            "return 200 $host;",
            "line 1: return: a body with variables is not read; use a Service that answers",
        ),
        (
            "configuration-snippet",
            "if (-f $request_filename) { return 403; }",
            "line 1: if: expected a variable, alone or with =, !=, ~, ~*, !~ or !~* and a value; files can't be tested",
        ),
        ("auth-snippet", "return 200;", "line 1: return: expected proxy_set_header only"),
        (
            "http-snippet",
            "lua_shared_dict a 1m;",
            "line 1: lua_shared_dict: Lua is not supported; use a service of your own: no program runs in the proxy",
        ),
        (
            "configuration-snippet",
            "access_by_lua_block {\n  if ngx.var.x ~= 'a;' then return ngx.exit(403) end\n}",
            "line 1: access_by_lua_block: Lua is not supported; use the annotation auth-url with a service that decides",
        ),
        (
            "configuration-snippet",
            "proxy_http_version 1.1;",
            "line 1: proxy_http_version: it is not read and not needed (HTTP/1.1 is spoken to backends); remove it",
        ),
        (
            "configuration-snippet",
            r#"add_header A "b\nc";"#,
            "line 1: add_header: expected no tab or line break, which only the texts of return and sub_filter may have",
        ),
        ("configuration-snippet", "return 200 '\0';", "line 1: the control character \\u{0} is not allowed"),
    ] {
        assert_eq!(faulty(name, text), expected, "{text}");
    }
    for text in [
        "add_header Content-Length 5;",
        "proxy_set_header Transfer-Encoding chunked;",
        "proxy_set_header X-A $1;",
        "set $host x;",
        "set $x $upstream_addr;",
        "rewrite ^/a(?=b) /c;",
        "return 301;",
        "return 99;",
        "more_set_headers 'a b: c';",
        "deny unix:;",
        "add_header A $;",
        "sub_filter $host x;",
        "access_log /tmp/x;",
        "gzip on;",
        "limit_except GET { return 403; }",
        "if ($a) { if ($b) { return 403; } }",
        "proxy_set_header X-A $gzip_ratio;",
        "content_by_lua_block { ngx.say('x') }",
        "include /etc/passwd;",
        "alias /etc/;",
        r#"return 302 "https://a.example/\n";"#,
        r#"return "https://a.example/\r\nX: y";"#,
        r#"rewrite ^ "/a\tb";"#,
        r#"set $x "a\nb";"#,
        r#"if ($x = "a\n") { return 403; }"#,
        "default_type 'a\nb';",
    ] {
        faulty("configuration-snippet", text);
    }
}

#[test]
fn an_auth_snippet_sets_fields_and_nothing_else() {
    let read = |text: &str| AuthSnippet::parse(text).map(|snippet| snippet.0.len());
    assert_eq!(read("proxy_set_header X-Forwarded-Method $request_method;"), Some(1));
    assert_eq!(
        read("# a\n  proxy_set_header X-Forwarded-Host $http_host; proxy_set_header \"X-A\" 'b ${host} c' ;\n"),
        Some(2)
    );
    for bad in [
        "",
        "proxy_set_header X-A $host",
        "proxy_set_header X-A;",
        "proxy_set_header X-A a b;",
        "proxy_set_header X-A $nope;",
        "proxy_set_header Content-Length 5;",
        "proxy_set_header X-A \"a\"b;",
        "proxy_set_header X-A $host; }",
        "more_set_headers X-A;",
        "if ($host) { return 200; }",
        "proxy_set_header X-A $host; return 200;",
    ] {
        assert_eq!(read(bad), None, "{bad}");
    }
}

#[test]
fn an_inner_level_that_adds_fields_inherits_none() {
    let level = |text: &str| read::read(text, Context::Location).unwrap();
    let outer = level("add_header A 1; more_set_headers 'B: 1'; proxy_hide_header C;");
    let names = |level: &Level| {
        let snippet = level.snippet(false, &[]).unwrap();
        snippet.edits.response.iter().map(|edit| edit.edit.name().as_str().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&level("more_set_headers 'D: 1';").within(&outer)), ["C", "B", "D", "A"]);
    assert_eq!(names(&level("add_header D 1;").within(&outer)), ["C", "B", "D"]);
    let block = level("add_header A 1; if ($host = x) { add_header E 1; }").snippet(false, &[]).unwrap();
    let fairway_model::SnippetStep::If(block) = &block.steps[0] else { panic!() };
    assert_eq!(block.edits.response.len(), 1);
}
