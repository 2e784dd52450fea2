/* relayd/smtp/dialogue.h - what a client and its peer said of late, for the admin to read.
 *
 * Lines "C: ..." and "S: ...", each cut; the older ones are forgotten.  Of a login only who it was
 * and how it ended: the rest is a secret, or something to guess it from.
 */
#ifndef RELAYD_SMTP_DIALOGUE_H
#define RELAYD_SMTP_DIALOGUE_H

#include "relayd/core/slice.h"

#define DIALOGUE_BYTES 2048
#define DIALOGUE_LINE  240 /* bytes of a line that are kept */

struct dialogue { /* starts zeroed */
	size_t len;
	char text[DIALOGUE_BYTES];
};

/* Lines that were sent ('C') or came ('S').  login: they may be part of one. */
void dialogue_note(struct dialogue *d, char who, struct slice said, bool login);

#endif
