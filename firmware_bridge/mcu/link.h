/* The controller's side of the reject controller protocol: messages in and out of frames, and the resending of events.
 *
 * Call `link_poll` after every call of a reject_on_...: it sends the events that are due.
 */
#ifndef LINK_H
#define LINK_H

#include <stdint.h>

#include "frames.h"
#include "reject.h"

#define EVENT_WINDOW 8u /* unacknowledged events on the wire: 176 bytes, 15 ms at 115200, half the time to resending */

typedef struct { /* they stop at 65535 */
    uint16_t not_ours; /* good CRC, but no message, or of another boot */
    uint16_t resends;
    uint16_t dropped; /* answers that found no room in the port */
} link_counts_t;

typedef struct {
    reject_t *reject;
    deframer_t deframer;
    link_counts_t counts;
    uint32_t sent_us;  /* when the oldest unacknowledged event was last sent, or an ack made progress */
    uint16_t next_seq; /* the next event to send */
} link_t;

void link_init(link_t *l, reject_t *reject);
void link_on_byte(link_t *l, uint8_t byte, uint32_t now_us);
void link_on_time(link_t *l, uint32_t now_us); /* about each millisecond, after reject_on_time */
void link_poll(link_t *l);                     /* send the events that are due */

#endif
