/* relayd/core/config.h - the config file, checked and typed (INTERFACE.md section 3).
 *
 * A config is immutable and counted: a reload makes a new one, and what began under the old one
 * ends under it.  It comes with the bytes of every file that it names (keys, users, recipients,
 * rules), as read when it was loaded, so that a role opens no path of the admin's and a
 * generation is one consistent picture.
 */
#ifndef RELAYD_CORE_CONFIG_H
#define RELAYD_CORE_CONFIG_H

#include "relayd/core/cidr.h"
#include "relayd/core/err.h"
#include "relayd/core/mechanism.h"
#include "relayd/core/slice.h"

struct config_strings {
	const char **v;		/* n NUL-terminated strings */
	size_t n;
};

enum config_tls {
	CONFIG_TLS_OFF,
	CONFIG_TLS_STARTTLS,	/* listener: offered */
	CONFIG_TLS_REQUIRED,	/* listener: STARTTLS before MAIL; route: always, any certificate */
	CONFIG_TLS_IMPLICIT,	/* listener: TLS from the first byte */
	CONFIG_TLS_OPPORTUNISTIC, /* route: STARTTLS where offered, any certificate */
	CONFIG_TLS_VERIFY,	/* route: STARTTLS with a certificate that fits, or not at all */
};

/* How a login goes: of all listeners, and of one. */
struct config_mechanisms {
	unsigned set;		/* of MECHANISM_BIT() */
	bool named;		/* by the config, not by default */
	unsigned without_tls;	/* of them: those that may be used without TLS */
};

/* Three times the longest is still well under the client's 10 minutes (RFC 5321 section
 * 4.5.3.2.6). */
#define CONFIG_FILTER_S_MIN 1
#define CONFIG_FILTER_S_MAX 180

/* At least so many bytes in each so many seconds. */
struct config_pace {
	uint32_t bytes, seconds;
};

struct config_listener {
	const char *name;
	struct config_strings address;	/* "*:25", "127.0.0.1:2525", "[::1]:25", "unix:/path" */
	enum config_tls tls;
	bool auth_required;
	bool lmtp;			/* LMTP instead of SMTP (RFC 2033) */
	bool convert_line_ends; /* CR or LF alone, of those of networks; else they are refused */
	bool strict_eight_bit;  /* 8-bit data wants BODY=8BITMIME, a UTF-8 header SMTPUTF8 */
	struct cidr *xclient, *xforward; /* who may speak for other clients */
	size_t n_xclient, n_xforward;
	struct config_mechanisms mechanisms;	/* those of sasl where it names none */
	const char *banner;		/* behind the host name in the greeting, or NULL */
	/* Its own limits; 0: those of limits { } */
	uint64_t message_size;
	uint32_t recipients, connections, connections_per_ip, connections_per_net;
	bool filters_set;		/* only the filters named in it run, maybe none */
	struct config_strings filters;
	const char *policy;		/* in place of inbound and outbound, lower case, or NULL */
	struct cidr *proxy;		/* from here a PROXY header comes first */
	size_t n_proxy;
	uint32_t proxy_timeout_ms;
	int line;
};

enum config_recipients {
	CONFIG_RECIPIENTS_PROBE,
	CONFIG_RECIPIENTS_ANY,
	CONFIG_RECIPIENTS_FILE,
	CONFIG_RECIPIENTS_LDAP,
};

/* A directory that knows recipients. */
struct config_ldap {
	const char *name;
	/* "ldap://host:389", "ldaps://...", "ldapi://..."; tried in order */
	struct config_strings uri;
	const char *bind;		/* DN, or NULL: anonymous */
	const char *password_file;	/* with bind; its first line */
	const char *base;		/* DN under which is searched */
	const char *filter; /* with %s for the address, %u for its local part, %d for its domain */
	bool starttls;
	const char *ca; /* path of PEM; its certificate authorities, or NULL: the system's */
	uint32_t timeout_ms;
	uint32_t known_s, unknown_s;	/* lifetimes of what it says */
	int line;
};

struct config_route {
	const char *domain;		/* lower case; "*.example.org", ".example.org" or "*" */
	/* "host:port", "[::1]:25", "lmtp:/path", "lmtp:host:port", "mx" */
	struct config_strings to;
	struct config_strings fallback;	/* the same, but mx: when none of to can be reached */
	enum config_tls tls;		/* OFF, OPPORTUNISTIC (the default), REQUIRED or VERIFY */
	struct cidr *sources;		/* addresses to send from, in turn; none: any */
	size_t n_sources;
	const char *helo;		/* or NULL: hostname */
	uint32_t connections;		/* at once to one next hop; 0: the built-in limit */
	uint32_t rate_n, rate_s;	/* so many transactions in so many seconds; 0: any number */
	const char *login;		/* what we log in as (RFC 4954), or NULL: no login */
	const char *password_file;	/* with login */
	struct slice password;		/* its first line; empty where secrets are held back */
	enum config_recipients recipients;
	const char *recipients_file;	/* with CONFIG_RECIPIENTS_FILE */
	const struct config_ldap *recipients_ldap; /* with CONFIG_RECIPIENTS_LDAP */
	int line;
};

/* Limits that all mail to hosts, or for domains, of one provider shares. */
struct config_provider {
	const char *name;
	struct config_strings hosts;	/* patterns as a route's title has them, in lower case */
	/* the same, of the domains whose MX records lead to a host */
	struct config_strings domains;
	uint32_t connections;		/* at once to all its hosts; 1 .. */
	uint32_t rate_n, rate_s;	/* so many transactions in so many seconds; 0: any number */
	int line;
};

enum config_for { CONFIG_FOR_BOTH, CONFIG_FOR_INBOUND, CONFIG_FOR_OUTBOUND };
enum config_on_error {
	CONFIG_ON_ERROR_DEFAULT, /* the filter's own: defer for security, accept for advisory */
	CONFIG_ON_ERROR_DEFER,
	CONFIG_ON_ERROR_ACCEPT,
	CONFIG_ON_ERROR_QUARANTINE,
};

/* An option of a filter section as written: what its filter makes of it is the filter's to
 * check. */
struct config_option {
	const char *name;
	struct config_strings values;
	int line;
};

struct config_filter {
	const char *name;		/* the title */
	const char *type;		/* its kind, by default the name */
	const char *module;		/* path of a loadable one, or NULL */
	enum config_for direction;
	bool direction_set;		/* false: the kind's own default applies */
	enum config_on_error on_error;
	bool on_release;		/* runs on released mail too */
	const char *help;		/* for who it refuses: text or an URL, or NULL */
	struct config_option *options;	/* in the order written; of `options = {"k=v"}` too */
	size_t n_options;
	int line;
};

struct config_policy {
	const char *name; /* "inbound", "outbound", a listener's, or a domain of ours; lower case */
	bool has_tag, has_quarantine, has_reject;
	double tag, quarantine, reject;
	int line;
};

struct config_file {
	const char *path;
	struct slice bytes;
	bool secret;			/* a private key, a keytab, a password or the users file */
	bool outbound; /* a secret that delivery needs: a password for a next hop */
	bool watched;  /* of TLS, recipients: read again by itself when it changes */
};

struct config {
	const char *path;		/* of the config file */
	const char *hostname, *postmaster, *user, *run, *spool, *state;
	const char *users;		/* path, or NULL when not set */
	const char *help;		/* for who is refused: text or an URL, or NULL */
	bool log_syslog;
	unsigned workers;		/* 1 .. 60, auto resolved */

	struct config_strings domains;	/* lower case */
	struct cidr *networks;
	size_t n_networks;

	struct {
		struct config_strings servers;	/* empty: /etc/resolv.conf */
		uint32_t timeout_ms;
	} dns;
	struct {
		struct config_strings certificates, keys;	/* paths, as many of each */
		const char *client_ca;		/* path, or NULL: no client is verified */
		struct config_strings fingerprints;	/* as written: "sha256:..." or a path */
		uint8_t (*relay_fingerprints)[32];	/* all of them, of the files too */
		size_t n_relay_fingerprints;
		uint32_t ticket_lifetime_s;	/* 0: no session tickets */
	} tls;

	struct {
		struct config_mechanisms mechanisms;	/* of all listeners, and of review */
		const char *senders;		/* path of the sender login map, or NULL */
		const char *keytab, *realm;	/* of Kerberos, or NULL */
		const char *introspect;		/* the command that knows tokens, or NULL */
		uint32_t introspect_ms;
	} sasl;

	struct config_listener *listeners;
	size_t n_listeners;

	struct {
		uint64_t message_size;		/* bytes */
		uint32_t recipients;		/* a transaction */
		uint32_t messages;		/* a session; 0: any number */
		uint32_t connections, connections_per_ip, connections_per_net;
		uint32_t session_s;		/* of a session; UINT32_MAX: any */
		struct config_pace data_rate;	/* of a message that is on its way; of 0: any */
		uint32_t filter_s; /* of the filters of a stage; CONFIG_FILTER_S_MIN .. MAX */
		uint32_t scanning;		/* messages that filters look at, a worker */
		uint64_t memory;		/* bytes of messages in flight, a worker */
	} limits;

	struct config_route *routes;
	size_t n_routes;
	uint32_t *by_domain,
	    *patterns; /* config_route_for()'s: a hash of them, and those with a "*" or "." */
	size_t cap_by_domain, n_patterns;
	struct config_provider *providers;
	size_t n_providers;

	struct {
		char extension; /* what separates a local part from its extension; 0: nothing */
		uint32_t known_s, unknown_s, unreachable_s; /* lifetimes of what a probe found */
	} recipients;
	struct config_ldap *ldaps;
	size_t n_ldaps;

	struct {
		uint32_t *retry_s;		/* seconds; the last repeats */
		size_t n_retry;
		uint32_t warn_s, expire_s;
		uint32_t bounces;		/* a minute, and warnings; 0: any number */
		uint64_t reserve;		/* bytes of the disk that intake leaves alone */
	} queue;

	struct config_filter *filters;
	size_t n_filters;
	struct config_policy *policies;
	size_t n_policies;

	struct {
		const char *store;		/* directory */
		uint32_t keep_s;
		const char *to;			/* "lmtp:..." instead of our own review, or NULL */
		int line;			/* of to */
	} quarantine;
	struct {
		const char *user;
		struct config_strings imap, imaps, pop3, pop3s, http;
		bool pop3_delete;
		int line;			/* of the section */
	} review;

	struct config_file *files;
	size_t n_files;
	uint32_t generation; /* of the bytes of the config and its files: 32 bits of a digest */
};

/* Where the bytes of files come from: the disk, or the snapshot that a role was handed. */
struct config_source;
struct config_source *config_source_disk(void);
/* The same without private keys and the users file, for who need not be able to read them. */
struct config_source *config_source_disk_public(void);
/* Borrows bytes as long as the source and what was loaded from it live. */
struct config_source *config_source_snapshot(struct slice bytes, struct err *err);
/* The bytes of that snapshot are a mapping, which goes with the source. */
void config_source_own_map(struct config_source *src);
void config_source_free(struct config_source *src);

/* Loads and checks path.  NULL with *err: ERR_CONFIG, msg "FILE:LINE: what is wrong".  Takes src
 * over in any case.  Checks everything that can be checked without starting: names, values,
 * duplicates, domains without a route, certificate and key present and fitting.  Options
 * of filters are checked by the filters (pipeline_new()). */
struct config *config_load(const char *path, struct config_source *src, struct err *err);
/* The same config with those of its files that are watched as they are on the disk now, and all
 * else as it was.  NULL with *err as above: cfg goes on serving. */
struct config *config_renew(const struct config *cfg, struct err *err);
/* Their bytes are the same. */
bool config_same_files(const struct config *a, const struct config *b);
struct config *config_ref(const struct config *cfg);
void config_unref(struct config *cfg);

/* A warning that is no error ("tls = starttls is off: no certificate"); n counts from 0, NULL at
 * the end. */
const char *config_warning(const struct config *cfg, size_t n);

/* The bytes of a file that the config names; empty with p set when it is an empty file, false
 * when the config does not name it. */
bool config_file(const struct config *cfg, const char *path, struct slice *bytes);
/* The config and its files as one run of bytes for config_source_snapshot().  secrets: with the
 * private keys and the users file; else of the secrets those alone that are outbound. */
struct buf;
void config_snapshot(const struct config *cfg, bool secrets, struct buf *out);

/* The route that applies to a domain (any case), or NULL: its own, else that of the longest suffix
 * ("*.example.org" is any domain below it, ".example.org" it and those), else "*". */
const struct config_route *config_route_for(const struct config *cfg, struct slice domain);
/* The provider that a host (any case) belongs to, found by the MX records of domain, or by itself
 * where that is empty; or NULL.  Of several the one that says most, as with routes, the domain
 * before the host. */
const struct config_provider *config_provider_for(
    const struct config *cfg, struct slice host, struct slice domain);
const struct config_policy *config_policy_named(const struct config *cfg, struct slice name);
bool config_is_our_domain(const struct config *cfg, struct slice domain);
/* The certificate with this SHA-256 may relay as those in networks may. */
bool config_may_relay(const struct config *cfg, const uint8_t sha256[static 32]);
/* NULL when there is none of that name (any case). */
const struct config_listener *config_listener_named(const struct config *cfg, const char *name);
/* A PROXY header comes first from this address (empty: a unix socket) on this listener. */
bool config_is_proxy(const struct config_listener *listener, struct slice addr);
/* addr: 4 or 16 bytes, network order. */
bool config_in_networks(const struct config *cfg, struct slice addr);

#endif
