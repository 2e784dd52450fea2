/* relayd/pipeline/facts/dns.h - DNS answers as facts. */
#ifndef RELAYD_PIPELINE_FACTS_DNS_H
#define RELAYD_PIPELINE_FACTS_DNS_H

#include "relayd/net/dns.h"
#include "relayd/pipeline/facts/facts.h"

/* Its source is a struct dns. */
extern const struct fact_source fact_source_dns;

/* The fact that an answer is; values (DNS_RECORDS_MAX of them) is storage for it. */
struct fact fact_of_dns(const struct dns_answer *answer, struct fact_value *values);

#endif
