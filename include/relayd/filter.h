/* relayd/filter.h - the contract between relayd and a mail filter, built in or loadable.
 *
 * A filter is a plain synchronous function of the message, its envelope and facts.  A fact is
 * anything from outside: a DNS answer, a counter, the time.  A filter does no I/O, keeps no state
 * between messages and has no callback.  It asks for a fact by name; when the answer is not there
 * yet it returns FILTER_WAIT, everything asked for is fetched in parallel, and it runs again from
 * the start.  What it found in a run that ended in FILTER_WAIT is forgotten.
 *
 *	static enum filter_status
 *	run(struct filter_tx *tx, const void *settings)
 *	{
 *		struct slice name = SLICE("2.0.0.127.zen.test");
 *		const struct fact *listing = filter_fact(tx, FACT_DNS_A, name);
 *
 *		if (listing == NULL)
 *			return FILTER_WAIT;
 *		if (listing->state == FACT_FAILED)
 *			return FILTER_ERROR;
 *		if (listing->state == FACT_OK)
 *			filter_score(tx, 4.0, "ZEN", "listed in zen.test");
 *		return FILTER_DONE;
 *	}
 *
 * A loadable filter is a shared object that exports `const struct filter relayd_filter`; it links
 * with nothing of relayd.  Structs that carry their size only grow at the end; a member past the
 * size that was built against does not exist.  Those without one do not change.  All slices are
 * borrowed and live as long as the run unless said otherwise.
 */
#ifndef RELAYD_FILTER_H
#define RELAYD_FILTER_H

#include <relayd/slice.h>

#ifdef __cplusplus
extern "C" {
#endif

#define RELAYD_FILTER_ABI 1u

struct filter_tx;		/* one run; opaque but for its host */

enum filter_stage {
	FILTER_CONNECT,		/* client address known */
	FILTER_HELO,		/* and its HELO name */
	FILTER_MAIL,		/* and the reverse-path */
	FILTER_RCPT,		/* and one forward-path: that of this run */
	FILTER_MESSAGE,		/* and all forward-paths and the bytes */
};
#define FILTER_AT(stage) (1u << (stage))

enum filter_status {
	FILTER_DONE,
	FILTER_WAIT,		/* a fact asked for was not there */
	FILTER_ERROR,		/* could not judge; on-error decides */
};

/* ---- facts ------------------------------------------------------------------------------- */

enum fact_kind {
	FACT_DNS_A,    /* name: a domain name; values: 4 bytes each */
	FACT_DNS_AAAA, /* values: 16 bytes each */
	FACT_DNS_TXT,  /* values: the strings of one record, joined */
	FACT_DNS_MX,   /* values: exchange names; number: preference; lowest first */
	FACT_DNS_PTR,  /* name: an address as text ("192.0.2.1"); values: names */
	FACT_TIME,     /* name: empty; number: ms since 1970, the same for all of a message */
	/* name: seconds ("6"); at FILTER_CONNECT: has the client spoken before it was greeted, or
	 * does it within so long?  values: what it said, the beginning; FACT_NONE: it kept still */
	FACT_EARLY,
	/* name: "SECONDS KEY"; was this key marked?  number: ms since 1970, when first */
	FACT_SEEN,
	/* the same, and marks it for all workers: it is forgotten when nobody has for SECONDS;
	 * always FACT_OK */
	FACT_MARK,
};

enum fact_state {
	FACT_OK,
	FACT_NONE,		/* the name, or data of this type, does not exist (n == 0) */
	FACT_FAILED,		/* no answer in time, or a server failure */
	FACT_SKIPPED,		/* not fetched, by a limit of its source */
};

struct fact_value {
	struct slice bytes;
	int64_t number;
};

struct fact {
	uint32_t size;		/* of this struct as relayd knows it */
	enum fact_state state;
	uint32_t ttl_s;
	size_t n;
	const struct fact_value *values;
	bool nxdomain;		/* FACT_NONE because the name itself does not exist */
};

/* A counter is a fact taken once, at the filter's turn, and kept or given back when the
 * transaction ends.  Never taken by relayctl scan or a replay: then it always conforms. */
struct filter_limit {
	struct slice key; /* "client-ip=192.0.2.1": what is counted; the filter's name is added */
	uint64_t count;		/* so many ... */
	uint32_t period_s;	/* ... in so many seconds */
	bool count_accepted;	/* true: given back when the message is not accepted */
};

/* ---- what a filter sees -------------------------------------------------------------------- */

struct filter_session {
	uint32_t size;
	struct slice client_addr;	/* 4 or 16 bytes, network order; empty for a unix socket */
	struct slice client_ip;		/* the same as text */
	struct slice helo;		/* as given; empty before HELO */
	struct slice auth_user;		/* empty without AUTH */
	struct slice listener;		/* its name in the config */
	struct slice hostname;		/* ours */
	bool tls;
	bool trusted;			/* from networks, or an authenticated user who may relay */
	struct slice session_id;
};

struct filter_envelope {
	uint32_t size;
	bool outbound;			/* the direction of INTERFACE.md section 3 */
	/* Domains of paths are in A-labels (RFC 5890), as DNS has them, whatever the client
	 * wrote. */
	struct slice reverse_path;	/* without <>; empty: the null reverse-path */
	size_t n_forward_paths;
	const struct slice *forward_paths; /* at FILTER_RCPT just the one */
	struct slice id;		/* of the message, as text */
};

/* A header field of the message, unfolded value in place: name and raw point into the message. */
struct filter_field {
	struct slice name;	/* as written, without the colon */
	struct slice raw;	/* the whole field with its folds and final CRLF */
	struct slice value;	/* unfolded and trimmed, encoded words as they are */
	struct slice decoded;	/* unfolded, RFC 2047 decoded to UTF-8 */
};

/* A leaf of the MIME tree, in order. */
struct filter_part {
	struct slice type;	/* "text/plain", lower case; the default where none is given */
	struct slice filename;	/* decoded; empty without one */
	struct slice raw;	/* the body as it stands in the message */
	struct slice text;	/* text/...: decoded to UTF-8, html as visible text; else empty */
};

/* ---- what a filter says --------------------------------------------------------------------- */

enum filter_verdict {
	FILTER_ACCEPT,		/* stop: no filter behind this one counts */
	FILTER_QUARANTINE,
	FILTER_REJECT,		/* 5xx */
	FILTER_DEFER,		/* 4xx */
	FILTER_DISCARD,		/* 250, and gone */
};

/* An edit of the message as received: at byte `at`, `remove` bytes go and `insert` comes.
 * Only a shaper makes edits. */
struct filter_edit {
	uint64_t at, remove;
	struct slice insert;	/* whole lines with CRLF where a field is added; text, as all
				 * that an edit leaves: no NUL, no CR or LF alone */
};

struct filter_host {
	uint32_t size;
	const struct fact *(*fact)(struct filter_tx *tx, enum fact_kind kind, struct slice name);
	/* 1: conforms, 0: over the limit, -1: not known yet (FILTER_WAIT), -2: the store failed */
	int (*reserve)(struct filter_tx *tx, const struct filter_limit *limit);
	const struct filter_session *(*session)(struct filter_tx *tx);
	const struct filter_envelope *(*envelope)(struct filter_tx *tx);
	struct slice (*message)(struct filter_tx *tx);
	/* False past the last one. */
	bool (*field)(struct filter_tx *tx, size_t index, struct filter_field *out);
	bool (*part)(struct filter_tx *tx, size_t index, struct filter_part *out);
	void (*score)(struct filter_tx *tx, double score, struct slice name, struct slice why);
	/* code 0: the default of the verdict; enhanced and text may be empty */
	void (*verdict)(struct filter_tx *tx, enum filter_verdict verdict, unsigned code,
	    struct slice enhanced, struct slice text);
	void (*edit)(struct filter_tx *tx, const struct filter_edit *edit);
	/* "spf" "pass", and properties "smtp.mailfrom=a@example.org", one a line: a resinfo of the
	 * Authentication-Results field (RFC 8601 section 2.2).  Values come as they are; the host
	 * quotes them. */
	void (*auth_result)(struct filter_tx *tx, struct slice method, struct slice result,
	    struct slice properties);
	/* Zeroed, gone after the run; NULL past the budget of the message. */
	void *(*alloc)(struct filter_tx *tx, size_t bytes);
	enum filter_stage (*stage)(struct filter_tx *tx);
};

struct filter_tx {
	const struct filter_host *host;
};

/* ---- the module ------------------------------------------------------------------------------ */

enum filter_option_type {
	FILTER_OPTION_STRING,
	FILTER_OPTION_LIST,	/* of strings */
	FILTER_OPTION_NUMBER,	/* "4.5" */
	FILTER_OPTION_COUNT,	/* "20" */
	FILTER_OPTION_DURATION,	/* "30s" */
	FILTER_OPTION_SIZE,	/* "64K" */
	FILTER_OPTION_FLAG,	/* "yes" "no" */
	FILTER_OPTION_FILES,	/* paths or globs: their content through filter_config.file */
};

struct filter_option {
	const char *name;
	enum filter_option_type type;
};

/* A section of the config, while it is being taken over.  Values are as written. */
struct filter_config {
	uint32_t size;
	const char *name;	/* the section's title */
	/* The index-th value of an option as written, or NULL. */
	const char *(*value)(const struct filter_config *cfg, const char *option, size_t index);
	/* The index-th file of a FILTER_OPTION_FILES option: its path, bytes in *bytes, or NULL. */
	const char *(*file)(const struct filter_config *cfg, const char *option, size_t index,
	    struct slice *bytes);
	/* Says what is wrong with an option; line 0 is that of the option in the config, a file may
	 * be named instead.  Returns -1. */
	int (*fail)(const struct filter_config *cfg, const char *option, const char *file,
	    unsigned line, const char *text);
	void (*warn)(const struct filter_config *cfg, const char *file, unsigned line,
	    const char *text);
	/* Parse as the config does; false when text is not of the type. */
	bool (*duration)(const char *text, uint32_t *seconds);
	bool (*bytes)(const char *text, uint64_t *bytes);
	bool (*number)(const char *text, double *number);
};

enum filter_flags {
	FILTER_SECURITY = 1,	/* on-error defaults to defer, else to accept */
	FILTER_INBOUND = 2,	/* for = inbound is the default */
	FILTER_SHAPER = 4,	/* runs once per copy after the verdict, and only edits */
	FILTER_HEAVY = 8,	/* runs in the pool, its facts frozen */
};

struct filter {
	uint32_t abi;		/* RELAYD_FILTER_ABI */
	uint32_t size;		/* sizeof(struct filter) */
	const char *name;	/* its kind */
	uint32_t stages;	/* set of FILTER_AT() */
	uint32_t flags;		/* enum filter_flags */
	const struct filter_option *options; /* ends with a NULL name */
	/* Builds settings from the section: 0, or -1 after cfg->fail().  Called per generation. */
	int (*configure)(const struct filter_config *cfg, void **settings);
	void (*release)(void *settings);
	/* May run in several threads at once: settings are read only.  It always returns, and at
	 * once unless it is heavy: a worker that is lost in it for limits { filter-time } is
	 * killed. */
	enum filter_status (*run)(struct filter_tx *tx, const void *settings);
};

/* ---- short hands ----------------------------------------------------------------------------- */

static inline const struct fact *
filter_fact(struct filter_tx *tx, enum fact_kind kind, struct slice name)
{
	return tx->host->fact(tx, kind, name);
}

static inline const struct filter_session *
filter_session(struct filter_tx *tx)
{
	return tx->host->session(tx);
}

static inline const struct filter_envelope *
filter_envelope(struct filter_tx *tx)
{
	return tx->host->envelope(tx);
}

static inline void
filter_score(struct filter_tx *tx, double score, struct slice name, struct slice why)
{
	tx->host->score(tx, score, name, why);
}

static inline void
filter_verdict(struct filter_tx *tx, enum filter_verdict verdict, struct slice text)
{
	tx->host->verdict(tx, verdict, 0, SLICE(""), text);
}

#ifdef __cplusplus
}
#endif

#endif
