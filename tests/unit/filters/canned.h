/* tests/unit/filters/canned.h - a filter host out of a can: a message, an envelope and facts.
 *
 *	static const struct canned_fact facts[] = {
 *		CANNED_A("2.0.0.127.zen.test", "\x7f\x00\x00\x02"),
 *		CANNED_FAILED(FACT_DNS_A, "2.0.0.127.slow.test"),
 *	};
 *	struct canned can;
 *
 *	canned_init(&can);
 *	canned_client(&can, "127.0.0.2");
 *	CANNED_FACTS(&can, facts);
 *	ck_assert_int_eq(canned_run(&can, &filter_dnsbl, settings), FILTER_DONE);
 *	ck_assert_double_eq(can.score, 4.0);
 *	canned_fini(&can);
 *
 * It is as strict as the real host: a fact is unknown in the run that first asks for it, what a
 * run found before FILTER_WAIT is forgotten, and a run that waits for nothing new aborts the
 * test.  Needs nothing of relayd but its public header.
 */
#ifndef TESTS_UNIT_FILTERS_CANNED_H
#define TESTS_UNIT_FILTERS_CANNED_H

#include <relayd/filter.h>

#define CANNED_FACTS_MAX    1024
#define CANNED_FINDINGS_MAX 512
#define CANNED_LIMITS_MAX   16
#define CANNED_RUNS_MAX     200

/* A row of a table of facts; several rows of one kind and name are its values, in order. */
struct canned_fact {
	enum fact_kind kind;
	const char *name; /* compared without regard to case */
	enum fact_state state;
	struct slice bytes;
	int64_t number;
	bool nxdomain;
};

#define CANNED_A(name, bytes)                                                                      \
	{                                                                                          \
		FACT_DNS_A, name, FACT_OK, SLICE(bytes), 0, false                                  \
	}
#define CANNED_AAAA(name, bytes)                                                                   \
	{                                                                                          \
		FACT_DNS_AAAA, name, FACT_OK, SLICE(bytes), 0, false                               \
	}
#define CANNED_TXT(name, text)                                                                     \
	{                                                                                          \
		FACT_DNS_TXT, name, FACT_OK, SLICE(text), 0, false                                 \
	}
#define CANNED_MX(name, preference, host)                                                          \
	{                                                                                          \
		FACT_DNS_MX, name, FACT_OK, SLICE(host), preference, false                         \
	}
#define CANNED_PTR(ip, host)                                                                       \
	{                                                                                          \
		FACT_DNS_PTR, ip, FACT_OK, SLICE(host), 0, false                                   \
	}
#define CANNED_TIME(ms)                                                                            \
	{                                                                                          \
		FACT_TIME, "", FACT_OK, SLICE(""), ms, false                                       \
	}
#define CANNED_FAILED(kind, name)                                                                  \
	{                                                                                          \
		kind, name, FACT_FAILED, SLICE(""), 0, false                                       \
	}
#define CANNED_NODATA(kind, name)                                                                  \
	{                                                                                          \
		kind, name, FACT_NONE, SLICE(""), 0, false                                         \
	}

struct canned_finding {
	double score;
	char name[128];
	char why[512];
};

struct canned {
	struct filter_tx tx; /* first: the host finds the can by it */

	/* What the filter sees; fill in before canned_run(). */
	struct filter_session session;
	struct filter_envelope envelope;
	enum filter_stage stage; /* FILTER_MESSAGE */
	struct slice message;
	size_t n_fields; /* 0: those of the message, not decoded */
	const struct filter_field *fields;
	size_t n_parts; /* 0: the body of the message as one text/plain part */
	const struct filter_part *parts;
	/* A name in no table: FACT_NONE with nxdomain, or what is set here. */
	enum fact_state unknown;
	int reserve;   /* the answer once known: 1, 0 or -2 */
	size_t budget; /* bytes for alloc; 16 MiB */

	/* What came of the last run. */
	unsigned runs; /* that canned_run() needed */
	double score;  /* the sum of the findings */
	size_t n_findings;
	struct canned_finding findings[CANNED_FINDINGS_MAX];
	size_t n_verdicts;
	enum filter_verdict verdict; /* the last one */
	unsigned code;
	char enhanced[16], text[1024];
	size_t n_auth;
	char method[32], result[32], properties[1024]; /* the last auth_result */
	size_t n_edits;
	struct filter_edit edit; /* the last one; insert is borrowed from the filter */
	size_t n_limits;         /* reserved, all runs */
	struct canned_limit {
		char key[256];
		uint64_t count;
		uint32_t period_s;
		bool count_accepted;
	} limits[CANNED_LIMITS_MAX];
	size_t n_asked; /* facts asked for, all runs, each once */

	/* Inside. */
	struct canned_asked {
		struct fact fact;
		enum fact_kind kind;
		char name[512];
		bool ready;
	} * asked;
	const struct canned_fact *facts;
	size_t n_facts;
	void *blocks;
	size_t allocated;
	char client_ip[64], client_addr[16];
};

void canned_init(struct canned *can);
void canned_fini(struct canned *can);
/* Borrows the rows. */
void canned_facts(struct canned *can, const struct canned_fact *rows, size_t n);
#define CANNED_FACTS(can, rows) canned_facts(can, rows, sizeof(rows) / sizeof((rows)[0]))
/* Sets client_ip and client_addr of the session from text; any IPv4 or IPv6 address. */
void canned_client(struct canned *can, const char *ip);
/* Runs the filter once; what it found is in can. */
enum filter_status canned_step(
    struct canned *can, const struct filter *filter, const void *settings);
/* Runs it until it does not wait; what was asked for becomes known between the runs. */
enum filter_status canned_run(
    struct canned *can, const struct filter *filter, const void *settings);
/* The finding of that name, or NULL. */
const struct canned_finding *canned_finding(const struct canned *can, const char *name);
/* Whether the fact was asked for, in any run. */
bool canned_asked(const struct canned *can, enum fact_kind kind, const char *name);

/* ---- a section of the config ----------------------------------------------------------------- */

struct canned_option {
	const char *option, *value; /* a repeated option is a list */
};

struct canned_file {
	const char *option, *path;
	struct slice bytes;
};

struct canned_config {
	struct filter_config cfg; /* first */
	const struct canned_option *options;
	size_t n_options;
	const struct canned_file *files;
	size_t n_files;
	unsigned failures, warnings;
	char said[16384]; /* one line each: "FILE:LINE: text" or "option: text" */
};

void canned_config(
    struct canned_config *cc, const char *name, const struct canned_option *options, size_t n);
#define CANNED_CONFIG(cc, name, options)                                                           \
	canned_config(cc, name, options, sizeof(options) / sizeof((options)[0]))
/* filter->configure() over cc: 0 or -1; a -1 without a word about why aborts the test. */
int canned_configure(struct canned_config *cc, const struct filter *filter, void **settings);

#endif
