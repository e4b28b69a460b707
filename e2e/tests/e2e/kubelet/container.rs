//! The environment of a container: volumes, variables and rights; and what a pod waits for until it can have them.

use anyhow::Context as _;
use fairway_e2e::scene;
use k8s_openapi::api::authentication::v1::TokenReview;
use kube::Api;
use kube::api::PostParams;
use serde_json::json;

use super::{begin, event, get, phase, running, shell, text};

#[test]
fn volumes_and_variables_show_what_objects_say_and_volumes_follow_them() -> anyhow::Result<()> {
    scene::run("kubelet-volumes", async |scene| {
        begin(scene, include_str!("volumes.yaml")).await?;
        running(scene, "full").await?;
        let pod = get(scene, "full").await?;
        let sh = async |script: &str| shell(scene, "full", "main", script).await;

        let variables =
            sh("echo $W_greeting; echo $WHO; echo $TEXT; echo ${NONE-unset}; echo $IP $NODE $CPU; pwd").await?;
        let places = format!("{} {} 10", text(&pod, "/status/podIP"), text(&pod, "/spec/nodeName"));
        let lines = ["hello", "alice", "alice is $(NOBODY), $(WHO)", "unset", &places, "/scratch"];
        assert_eq!(variables, lines.join("\n") + "\n");
        assert_eq!(sh("echo $KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT").await?, "10.96.0.1:443\n");

        assert_eq!(
            sh("cat /words/deep/file; od -An -tx1 /words/bytes; ls /words").await?,
            "in a folder 00 01 02\nbytes\ndeep\n"
        );
        assert_eq!(sh("cat /pod/note /pod/memory; ls /maybe | wc -l").await?, "say \"hi\"640\n");
        assert_eq!(sh("cat /pod/labels; echo; cat /all/word /all/who").await?, "color=\"blue\"\nhelloalice");
        // The group of the volumes may read what their owner may.
        assert_eq!(
            sh("id -u; id -g; id -G; stat -Lc '%u:%g %a' /pass/password").await?,
            "1234\n2345\n2345 3456\n0:3456 440\n"
        );
        let writable = "echo mine > /scratch/file && stat -c '%u:%g' /scratch/file && cat /scratch-again/file && touch /of-node/x && ls /scratch/on";
        assert_eq!(sh(writable).await?, format!("1234:3456\nmine\n{}\n", text(&pod, "/spec/nodeName")));
        for closed in ["/words/new", "/pass/password", "/scratch-again/new", "/new"] {
            let refused = sh(&format!("{{ echo x > {closed}; }} 2>/dev/null || echo refused")).await?;
            assert_eq!(refused, "refused\n", "{closed}");
        }
        assert_eq!(sh("head -c 2000000 /dev/zero > /memory/x 2>/dev/null; stat -c %s /memory/x").await?, "1048576\n");

        let review =
            json!({ "metadata": {}, "spec": { "token": sh("cat /all/token").await?, "audiences": ["elsewhere"] } });
        let reviews: Api<TokenReview> = Api::all(scene.client());
        let review = reviews.create(&PostParams::default(), &serde_json::from_value(review)?).await?.status;
        let review = review.context("a review has a status")?;
        let user = review.user.context("the token is good")?;
        assert_eq!(user.username, Some(format!("system:serviceaccount:{}:default", scene.namespace())));
        let bound = user.extra.unwrap_or_default();
        assert_eq!(bound["authentication.kubernetes.io/pod-name"], ["full"]);
        let own = sh("cd /var/run/secrets/kubernetes.io/serviceaccount; cat namespace; head -n1 ca.crt; test -s token")
            .await?;
        assert_eq!(own, format!("{}-----BEGIN CERTIFICATE-----\n", scene.namespace()));

        let secret = r#"{"stringData":{"password":"second","extra":"new"}}"#;
        scene.kubectl(&["patch", "secret", "pass", "-p", secret]).await?;
        scene.kubectl(&["label", "pod", "full", "--overwrite", "color=red"]).await?;
        scene
            .until("the volumes follow", async || {
                Ok(sh("cat /pass/password /pass/extra /pod/labels").await? == "secondnewcolor=\"red\"")
            })
            .await?;
        assert_eq!(sh("cat /single/password").await?, "first", "a path in a volume stays what it was");
        Ok(())
    })
}

#[test]
fn a_pod_waits_for_what_is_missing_and_says_so() -> anyhow::Result<()> {
    scene::run("kubelet-waiting", async |scene| {
        begin(scene, include_str!("waiting.yaml")).await?;
        let waiting = "/status/containerStatuses/0/state/waiting";
        let cases = [
            ("wants-variable", "CreateContainerConfigError", r#"secret "late" not found"#),
            ("wants-image", "ErrImageNeverPull", r#""example.com/unheard/of:1" is not present"#),
            ("wants-other-user", "CreateContainerConfigError", "runAsNonRoot and image will run as root"),
            ("wants-volume", "ContainerCreating", ""),
        ];
        for (name, reason, message) in cases {
            let says = async || {
                let pod = get(scene, name).await?;
                Ok(text(&pod, &format!("{waiting}/reason")) == reason
                    && text(&pod, &format!("{waiting}/message")).contains(message)
                    && text(&pod, "/status/phase") == "Pending")
            };
            scene.until(&format!("{name} says {reason}"), says).await?;
        }
        event(scene, "wants-volume", "FailedMount", r#"secret "late" not found"#).await?;
        event(scene, "wants-image", "Failed", "is not present with pull policy of Never").await?;
        phase(scene, "wants-kernel", "Failed").await?;
        assert_eq!(text(&get(scene, "wants-kernel").await?, "/status/reason"), "SysctlForbidden");

        scene.kubectl(&["create", "secret", "generic", "late", "--from-literal=word=here"]).await?;
        running(scene, "wants-variable").await?;
        running(scene, "wants-volume").await?;
        assert_eq!(shell(scene, "wants-variable", "main", "echo $LATE").await?, "here\n");
        assert_eq!(shell(scene, "wants-volume", "main", "cat /late/word").await?, "here");
        for name in ["wants-image", "wants-other-user"] {
            assert_eq!(text(&get(scene, name).await?, "/status/phase"), "Pending", "{name}");
        }
        // A container that never ran ends as well.
        scene.kubectl(&["delete", "pod", "wants-image", "--timeout=120s"]).await?;
        Ok(())
    })
}

#[test]
fn a_security_context_is_what_a_container_gets() -> anyhow::Result<()> {
    scene::run("kubelet-rights", async |scene| {
        begin(scene, include_str!("rights.yaml")).await?;
        running(scene, "plain").await?;
        running(scene, "hardened").await?;
        let show = "grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status | tr -s '\\t\\n' '  '";
        let plain = async |script: &str| shell(scene, "plain", "main", script).await;
        let hardened = async |script: &str| shell(scene, "hardened", "main", script).await;

        // The 14 capabilities that container runtimes leave by default, and then only one of them.
        assert_eq!(plain(show).await?, "CapEff: 00000000a80425fb CapBnd: 00000000a80425fb NoNewPrivs: 0 Seccomp: 0 ");
        let rights = "CapEff: 0000000000000000 CapBnd: 0000000000000400 NoNewPrivs: 1 Seccomp: 2 ";
        assert_eq!(hardened(show).await?, rights, "for a command");
        assert_eq!(hardened(&show.replace("self", "1")).await?, rights, "for the first process");
        assert_eq!(plain("id -u; hostname").await?, "0\nplain\n");
        assert_eq!(hardened("id -u; id -g; id -G; hostname").await?, "101\n82\n82 77\ncastle\n");
        assert_eq!(hardened("grep -c outside.example /etc/hosts").await?, "1\n");
        let kernel = "/proc/sys/net/ipv4/ip_unprivileged_port_start";
        assert_eq!(hardened(&format!("cat {kernel}")).await?, "42\n");
        assert_eq!(plain(&format!("cat {kernel}")).await?, "1024\n", "a setting of one pod");

        for (closed, why) in [
            ("touch /tmp/x", "the root is read-only"),
            ("unshare --net true", "no new namespaces"),
            ("chroot / true", "refused system call"),
            ("kill -0 2", "no process but its own"),
        ] {
            assert_eq!(hardened(&format!("{closed} 2>/dev/null && echo open")).await?, "", "{why}: {closed}");
        }
        for closed in ["mount -t tmpfs tmpfs /tmp", "touch /usr/x", "echo 1 > /proc/sys/kernel/sysrq"] {
            assert_eq!(plain(&format!("{{ {closed}; }} 2>/dev/null && echo open")).await?, "", "{closed}");
        }
        assert_eq!(plain("touch /tmp/x /x && echo open; ls /home /opt /srv 2>/dev/null | wc -l").await?, "open\n0\n");

        phase(scene, "own", "Succeeded").await?;
        let version = scene.kubectl(&["logs", "own"]).await?;
        assert!(version.starts_with("fairway "), "{version}");
        Ok(())
    })
}
