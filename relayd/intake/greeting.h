/* relayd/intake/greeting.h - whether a client waits until it is greeted, as a fact: FACT_EARLY.
 *
 * Asked before the greeting it looks, and where it is given time goes on looking, while the client
 * waits.  Later it tells what it found then; under TLS from the first byte nobody can know.
 */
#ifndef RELAYD_INTAKE_GREETING_H
#define RELAYD_INTAKE_GREETING_H

#include "relayd/pipeline/facts/facts.h"

#define GREETING_LOOK_MS    100
#define GREETING_MAX_S      60
#define GREETING_SAID_BYTES 64 /* of what it said */

/* Its source is the loop; the client of a question is a struct session. */
extern const struct fact_source fact_source_greeting;

#endif
