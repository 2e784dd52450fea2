/* relayd/review/imap/parse_internal.h - the arguments of the larger commands; for parse*.c. */
#ifndef RELAYD_REVIEW_IMAP_PARSE_INTERNAL_H
#define RELAYD_REVIEW_IMAP_PARSE_INTERNAL_H

#include "relayd/review/imap/lex.h"
#include "relayd/review/imap/parse.h"

bool imap_parse_fetch(struct imap_lex *lx, struct imap_command *cmd);
bool imap_parse_search(struct imap_lex *lx, struct imap_command *cmd);
bool imap_parse_store(struct imap_lex *lx, struct imap_command *cmd);
bool imap_parse_set(struct imap_lex *lx, struct imap_set *set);

#endif
