/* The reject controller as a state machine: no I/O, no clock, no heap, no wire.
 *
 * In go counts of the encoder at which something happens, the levels of the inputs, verdicts, and the time; out come
 * edges of the gate and of the healthy output (port.h) and a log of events. Whatever carries the messages (link.h, a
 * Modbus server) stands on top and calls the functions of the second half.
 *
 * A part's life: minted at the photo-eye with the encoder latched, a verdict from the host (the first one wins), at
 * `decide_counts` a missing verdict becomes the default, at `fire_counts` the gate fires or does not, and exactly one
 * of PASSED, FIRED, DEFAULTED is logged. A trip (the host silent, the table full, an input that stands in the way) or
 * a disarm makes the default of every part that stands open, also of those with a verdict: a host that fell silent is
 * not believed. Parts seen while not armed are numbered all the same and get the default.
 *
 * A part that finds the table full is not followed, nor are those between eye and gate when the controller restarts in
 * mid-run or loses its encoder. The gate is held open over the stretch of belt with such parts ("sweep") and the
 * healthy output is low. The maximum on-time limits a sweep like any pulse: on a belt that takes longer from eye to
 * gate, only the healthy output, wired to stop the belt, is safe.
 *
 * All counters wrap; differences are read as signed, so that a belt that runs backwards decides nothing, and what was
 * done at a count is not done again when the belt comes back to it.
 */
#ifndef REJECT_H
#define REJECT_H

#include <stdbool.h>
#include <stdint.h>

#include "messages.h" /* codes: VERDICT_*, ANSWER_*, EVENT_*, STATUS_*, FLAG_* */
#include "tally.h"

#define PART_SLOTS 48u  /* 8 bytes each on AVR; 96 parts/s at half a second from eye to gate */
#define EVENT_SLOTS 48u /* 11 bytes each; two per part: a host may be away for 2.4 s at 10 parts/s without losing one */

/* Everything that stands in the way of a reject, or of following parts. ARM is refused as long as one is set. */
#define FLAGS_BLOCKING (FLAG_BIN_FULL | FLAG_AIR_LOW | FLAG_ENCODER_LOST | FLAG_BELT_REVERSED)
#define FLAGS_WIRED (FLAG_BIN_FULL | FLAG_AIR_LOW) /* those that are wires */

typedef struct { /* the bytes of CONFIG as they are on the wire; no padding, and all our targets are little-endian */
    uint16_t decide_counts;
    uint16_t fire_counts;
    uint16_t pulse_counts;
    uint16_t confirm_counts;
    uint16_t watchdog_ms;
    uint16_t max_on_ms;
    uint8_t default_verdict;
    uint8_t inputs; /* which of FLAGS_WIRED are wired */
    uint16_t debounce_counts;
} reject_config_t;

typedef struct {
    uint16_t seq;
    uint8_t kind;     /* EVENT_* */
    uint32_t part_id; /* 0 without a part; EVENT_INPUT: the flags after the change */
    uint32_t encoder;
    uint32_t time_us;
} reject_event_t;

typedef struct { /* in the table; ids are kept by their lower half, see part_id() */
    uint32_t encoder;
    uint16_t id;
    uint8_t verdict; /* VERDICT_*, eight bits apart also in RAM */
    uint8_t stage;
} reject_part_t;

typedef struct { /* in the log; the sequence follows from the place */
    uint32_t encoder;
    uint32_t time_us;
    uint16_t id;
    uint8_t kind;
} reject_slot_t;

typedef struct { /* they stop at 65535 */
    uint16_t overwritten; /* events lost to a host that stayed away */
    uint16_t overflows;
    uint16_t trips;
    uint16_t bounces; /* breaks of the eye that were no part: chatter, or a belt that runs over the same parts again */
} reject_counts_t;

typedef struct { /* what is small comes first: AVR reaches 64 bytes behind a pointer with short instructions */
    uint8_t flags;
    uint8_t first_part; /* ring of parts */
    uint8_t part_count;
    uint8_t first_event;
    uint8_t event_count;
    bool is_configured;
    bool has_sweep;
    bool is_due_known;
    bool has_due;
    bool has_fire;
    bool is_plan_new; /* since reject_plan was asked */
    bool is_held;
    uint16_t next_event;
    uint32_t encoder;
    uint32_t now_us;
    uint32_t next_part;
    uint32_t due;  /* the next count with something to do, while `is_due_known` */
    uint32_t fire; /* and the next at which the gate opens for a part past its decide point */
    uint32_t gate_until;
    uint32_t sweep_from; /* first and last count of a gate to be held open */
    uint32_t sweep_until;
    reject_config_t config;
    uint32_t gate_on_us;
    uint32_t beat_us;
    uint32_t furthest;  /* the greatest count seen */
    uint32_t minted_at; /* count of the last part */
    uint32_t break_at;  /* count and time of the last break of the eye */
    uint32_t break_us;
    uint16_t levels_us; /* lower half */
    uint16_t boot_id;
    uint8_t faults;      /* accepted levels of FLAGS_WIRED */
    uint8_t seen_faults; /* levels that have not stood long enough */
    reject_counts_t counts;
    reject_part_t parts[PART_SLOTS];
    reject_slot_t events[EVENT_SLOTS];
} reject_t;

/* Power-on. boot_id: never 0, differs from the last one. saved: the configuration before a restart, or NULL. */
void reject_init(reject_t *r, uint16_t boot_id, uint32_t now_us, uint32_t encoder, const reject_config_t *saved);

/* What happens on the belt, in order. */
void reject_on_eye(reject_t *r, uint32_t encoder, uint32_t now_us);     /* the photo-eye breaks at this count */
void reject_on_encoder(reject_t *r, uint32_t encoder, uint32_t now_us); /* everything due up to this count happens */
void reject_on_confirm(reject_t *r, uint32_t encoder, uint32_t now_us); /* the sensor behind the gate sees a part */
void reject_on_inputs(reject_t *r, uint8_t faults, uint32_t now_us);    /* levels: FLAG_BIN_FULL | FLAG_AIR_LOW */
void reject_on_time(reject_t *r, uint32_t now_us);                      /* about each millisecond */

/* The nearest count at which `reject_on_encoder` will do something; false while nothing is under way. Calling it at
 * these counts only is the same as calling it at every count. */
bool reject_next_encoder(reject_t *r, uint32_t *encoder);

/* What the gate will do next, for an interrupt that compares counts: open at `on_at`, close at `off_at`. Only parts past
 * their decide point are in it, so that nothing that comes later can make it wrong. */
typedef struct {
    uint32_t on_at, off_at;
    bool has_on, has_off;
} reject_plan_t;
void reject_plan(reject_t *r, reject_plan_t *plan);
static inline bool reject_has_new_plan(const reject_t *r) { return r->is_plan_new || !r->is_due_known; }

/* For a transport. Each is idempotent. `now_us` is that of the last call above; see reject_at. */
void reject_at(reject_t *r, uint32_t now_us);                                           /* it is now this time */
uint8_t reject_verdict(reject_t *r, uint32_t part_id, uint8_t verdict, uint8_t *in_force); /* an ANSWER_* */
uint8_t reject_configure(reject_t *r, const reject_config_t *config);                   /* a STATUS_* */
uint8_t reject_arm(reject_t *r, bool is_on);                                            /* a STATUS_* */
void reject_beat(reject_t *r);                                                          /* the host lives */
void reject_hold(reject_t *r, bool is_wanted); /* and asks for a hold of the feed, or lets it go on */

uint8_t reject_flags(const reject_t *r); /* all FLAG_* */
bool reject_config(const reject_t *r, reject_config_t *config); /* false before the first one */
static inline uint16_t reject_boot_id(const reject_t *r) { return r->boot_id; }
static inline uint32_t reject_encoder(const reject_t *r) { return r->encoder; }
static inline uint32_t reject_next_part(const reject_t *r) { return r->next_part; }
static inline uint32_t reject_now_us(const reject_t *r) { return r->now_us; }

/* The log: sequences `oldest` up to before `next` are held. An event is read until it is acknowledged or overwritten.
 * The newest triggers are found by reading backwards from `next` (an acknowledged event is gone: a transport without
 * acknowledgements just never calls reject_ack). */
static inline uint16_t reject_next_event(const reject_t *r) { return r->next_event; }
static inline uint16_t reject_oldest_event(const reject_t *r) { return (uint16_t)(r->next_event - r->event_count); }
bool reject_event(const reject_t *r, uint16_t seq, reject_event_t *event); /* false: not held */
uint8_t reject_ack(reject_t *r, uint16_t seq); /* all up to and with `seq` have arrived; how many were let go */

#endif
