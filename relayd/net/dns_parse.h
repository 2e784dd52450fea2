/* relayd/net/dns_parse.h - a DNS message as an answer: bytes in, records out, no I/O. */
#ifndef RELAYD_NET_DNS_PARSE_H
#define RELAYD_NET_DNS_PARSE_H

#include "relayd/net/dns.h"

/* What a message says; records point into data. */
struct dns_parsed {
	struct dns_answer answer;
	struct dns_record records[DNS_RECORDS_MAX];
	/* Where the answer breaks off at an alias, the name that is to be asked next, and for how
	 * many seconds the way there is good; else "".  The answer is DNS_SERVFAIL then. */
	char alias[DNS_NAME_MAX + 2];
	uint32_t alias_ttl_s;
	size_t used;
	char data[DNS_ANSWER_BYTES];
};

/* The type's number (RFC 1035 section 3.2.2). */
int dns_type_number(enum dns_type type);
/* Reads the answer to a question for name and type.  Records that belong to neither it nor its
 * chain of CNAMEs are passed over; what is no DNS message becomes DNS_SERVFAIL. */
void dns_parse(struct slice message, enum dns_type type, const char *name, struct dns_parsed *out);

#endif
