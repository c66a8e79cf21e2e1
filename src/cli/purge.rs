//! What `purge` names, and what the admin listener is asked for then.

use clap::Args;

use super::operator::encode;

/// What is to be purged.
#[derive(Debug, Args)]
pub(super) struct Purged {
    #[command(flatten)]
    what: What,
    /// Make it stale instead: it may still stand in for a failure, or while the app is asked anew.
    #[arg(long)]
    soft: bool,
}

/// One of these.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct What {
    /// A page, with its query: https://shop.example/news?page=2. For http and https, and in all variants.
    url: Option<String>,
    /// Every page whose URL begins so: https://shop.example/blog/.
    #[arg(long, value_name = "URL")]
    prefix: Option<String>,
    /// All of a host: shop.example.
    #[arg(long)]
    host: Option<String>,
    /// What the app has answered with this tag (Surrogate-Key, Cache-Tag); several: what has any of them.
    #[arg(long)]
    tag: Vec<String>,
    /// Everything.
    #[arg(long)]
    all: bool,
}

impl Purged {
    /// The form that is sent: it may be longer than a query can be.
    pub(super) fn form(&self) -> String {
        let What { url, prefix, host, tag, all } = &self.what;
        let named = [("url", url), ("prefix", prefix), ("host", host)];
        let named = named.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?)));
        let tags = tag.iter().map(|tag| ("tag", tag.as_str()));
        let switches = [("all", *all), ("soft", self.soft)].into_iter().filter(|(_, is_on)| *is_on);
        let pairs = named.chain(tags).chain(switches.map(|(name, _)| (name, "1")));
        let pairs: Vec<_> = pairs.map(|(name, value)| format!("{name}={}", encode(value))).collect();
        pairs.join("&")
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::admin::purge_order;

    #[derive(Debug, clap::Parser)]
    struct Command {
        #[command(flatten)]
        purged: Purged,
    }

    fn form(arguments: &[&str]) -> Option<String> {
        Command::try_parse_from([&["purge"], arguments].concat()).ok().map(|command| command.purged.form())
    }

    #[test]
    fn what_is_sent_is_what_the_listener_reads() {
        for (arguments, what) in [
            (&["https://shop.example/a?b=1&c=%20+é"][..], "shop.example/a?b=1&c=%20+%C3%A9"),
            (&["--soft", "shop.example/a"], "shop.example/a"),
            (&["--prefix", "https://shop.example/blog/"], "shop.example/blog/*"),
            (&["--host", "Shop.Example"], "all of shop.example"),
            (&["--tag", "a&b", "--tag", "c=d"], "tags a&b, c=d"),
            (&["--all", "--soft"], "everything"),
        ] {
            let form = form(arguments).unwrap();
            let read = purge_order(&[form.as_bytes()]).map(|order| order.what.to_string());
            assert_eq!(read, Ok(what.into()), "{form}");
            assert_eq!(form.ends_with("&soft=1"), arguments.contains(&"--soft"), "{form}");
        }
    }

    #[test]
    fn what_names_nothing_or_two_things_is_refused() {
        for arguments in [
            &[][..],
            &["--soft"],
            &["shop.example/a", "--all"],
            &["shop.example/a", "shop.example/b"],
            &["--host", "a", "--tag", "b"],
            &["--prefix", "a/b", "--all"],
            &["--tag"],
        ] {
            assert_eq!(form(arguments), None, "{arguments:?}");
        }
    }
}
