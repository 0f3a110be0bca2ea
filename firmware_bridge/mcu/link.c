#include "link.h"

#include <string.h>

#include "port.h"
#include "wrap.h"

#define RESEND_US 30000     /* without any ack: event and ack are 3 ms at 115200 8N1; the rest is a busy host */
#define HOLE_RESEND_US 6000 /* with an ack that stands still, so that the host has a hole: twice the way there and back */
#define ANSWER_ROOM FRAME_MAX_BYTES /* kept free of events, so that the host's beats are answered */

/* Out */

/* Send the message of `length` bytes that stands at `frame + 1`. */
static void send(const link_t *l, uint8_t *frame, uint8_t length)
{
    port_send(l->reject, frame, frames_close(frame, length));
}

static void answer(link_t *l, uint8_t *frame, uint8_t length)
{
    if (port_room(l->reject) < FRAME_MAX_BYTES) {
        tally(&l->counts.dropped);
        return;
    }
    send(l, frame, length);
}

static void send_event(const link_t *l, const reject_event_t *event)
{
    uint8_t frame[FRAME_MAX_BYTES];
    uint8_t *m = frame + 1;
    m[0] = MSG_EVENT;
    put16(m + MSG_EVENT_AT_BOOT_ID, reject_boot_id(l->reject));
    put16(m + MSG_EVENT_AT_SEQ, event->seq);
    m[MSG_EVENT_AT_EVENT] = event->kind;
    put32(m + MSG_EVENT_AT_PART_ID, event->part_id);
    put32(m + MSG_EVENT_AT_ENCODER, event->encoder);
    put32(m + MSG_EVENT_AT_TIME_US, event->time_us);
    send(l, frame, MSG_EVENT_SIZE);
}

/* Events that were sent and are not acknowledged. Those overwritten meanwhile are not among them. */
static uint16_t unacknowledged(link_t *l)
{
    const uint16_t oldest = reject_oldest_event(l->reject);
    if (since16(l->next_seq, oldest) < 0) {
        l->next_seq = oldest;
    }
    return (uint16_t)(l->next_seq - oldest);
}

void link_poll(link_t *l)
{
    reject_event_t event;
    while (unacknowledged(l) < EVENT_WINDOW && reject_event(l->reject, l->next_seq, &event) &&
           port_room(l->reject) >= FRAME_MAX_BYTES + ANSWER_ROOM) {
        if (unacknowledged(l) == 0) { /* the time counts for the oldest one, or a busy line would never resend */
            l->sent_us = reject_now_us(l->reject);
        }
        send_event(l, &event);
        l->next_seq++;
    }
}

static void rewind_events(link_t *l)
{
    for (uint16_t count = unacknowledged(l); count; count--) {
        tally(&l->counts.resends);
    }
    l->next_seq = reject_oldest_event(l->reject);
}

/* In */

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "CONFIG is taken as it is on the wire: little-endian targets only"
#endif
typedef char config_is_wire[sizeof(reject_config_t) == MSG_CONFIG_SIZE - MSG_CONFIG_AT_DECIDE_COUNTS ? 1 : -1];

static uint16_t config_digest(const reject_t *r)
{
    reject_config_t config;
    return reject_config(r, &config) ? frames_crc16((const uint8_t *)&config, sizeof config) : 0;
}

/* Where the counters stand: `at` is the place of `next_part`, behind which HELLO_R and BEAT_R are alike but for the
 * digest. */
static uint8_t *put_state(const reject_t *r, uint8_t *at)
{
    put32(at, reject_next_part(r));
    put16(at + 4, reject_oldest_event(r));
    put16(at + 6, reject_next_event(r));
    return at + 8;
}

static void answer_hello(link_t *l, uint16_t nonce)
{
    const reject_t *r = l->reject;
    uint8_t frame[FRAME_MAX_BYTES];
    uint8_t *m = frame + 1;
    m[0] = MSG_HELLO_R;
    put16(m + MSG_HELLO_R_AT_VERSION, PROTOCOL_VERSION);
    put16(m + MSG_HELLO_R_AT_BOOT_ID, reject_boot_id(r));
    put16(m + MSG_HELLO_R_AT_NONCE, nonce);
    put32(m + MSG_HELLO_R_AT_TIME_US, reject_now_us(r));
    put16(put_state(r, m + MSG_HELLO_R_AT_NEXT_PART), config_digest(r));
    m[MSG_HELLO_R_AT_FLAGS] = reject_flags(r);
    answer(l, frame, MSG_HELLO_R_SIZE);
    l->next_seq = reject_oldest_event(r); /* a new host starts with the oldest */
}

static void answer_beat(link_t *l, uint16_t nonce)
{
    const reject_t *r = l->reject;
    uint8_t frame[FRAME_MAX_BYTES];
    uint8_t *m = frame + 1;
    m[0] = MSG_BEAT_R;
    put16(m + MSG_BEAT_R_AT_BOOT_ID, reject_boot_id(r));
    put16(m + MSG_BEAT_R_AT_NONCE, nonce);
    put32(m + MSG_BEAT_R_AT_TIME_US, reject_now_us(r));
    put32(m + MSG_BEAT_R_AT_ENCODER, reject_encoder(r));
    *put_state(r, m + MSG_BEAT_R_AT_NEXT_PART) = reject_flags(r);
    answer(l, frame, MSG_BEAT_R_SIZE);
}

static void done(link_t *l, uint8_t request, uint8_t status)
{
    uint8_t frame[FRAME_MAX_BYTES];
    uint8_t *m = frame + 1;
    m[0] = MSG_DONE;
    put16(m + MSG_DONE_AT_BOOT_ID, reject_boot_id(l->reject));
    m[MSG_DONE_AT_REQUEST] = request;
    m[MSG_DONE_AT_STATUS] = status;
    m[MSG_DONE_AT_FLAGS] = reject_flags(l->reject);
    answer(l, frame, MSG_DONE_SIZE);
}

static void on_config(link_t *l, const uint8_t *m)
{
    reject_config_t config;
    memcpy(&config, m + MSG_CONFIG_AT_DECIDE_COUNTS, sizeof config);
    done(l, MSG_CONFIG, reject_configure(l->reject, &config));
}

static void on_verdict(link_t *l, const uint8_t *m)
{
    const uint32_t part_id = get32(m + MSG_VERDICT_AT_PART_ID);
    uint8_t in_force;
    const uint8_t code = reject_verdict(l->reject, part_id, m[MSG_VERDICT_AT_VERDICT], &in_force);
    uint8_t frame[FRAME_MAX_BYTES];
    uint8_t *reply = frame + 1;
    reply[0] = MSG_VERDICT_R;
    put16(reply + MSG_VERDICT_R_AT_BOOT_ID, reject_boot_id(l->reject));
    put32(reply + MSG_VERDICT_R_AT_PART_ID, part_id);
    reply[MSG_VERDICT_R_AT_ANSWER] = code;
    reply[MSG_VERDICT_R_AT_IN_FORCE] = in_force;
    answer(l, frame, MSG_VERDICT_R_SIZE);
}

static void on_ack(link_t *l, uint16_t seq)
{
    const uint32_t now_us = reject_now_us(l->reject);
    const uint16_t sent = unacknowledged(l);
    if (reject_ack(l->reject, seq)) {
        l->sent_us = now_us; /* progress: the rest gets its full time */
    } else if (sent && since32(now_us, l->sent_us) >= HOLE_RESEND_US) {
        rewind_events(l);
    }
}

/* The length of a request of this kind; 0 for all that is none. */
static uint8_t size_of(uint8_t kind)
{
    static const uint8_t sizes[] = {0, MSG_HELLO_SIZE, MSG_CONFIG_SIZE, MSG_ARM_SIZE,
                                    MSG_BEAT_SIZE, MSG_VERDICT_SIZE, MSG_EV_ACK_SIZE};
    return kind < sizeof sizes ? sizes[kind] : 0;
}

static bool is_verdict(uint8_t code)
{
    return code == VERDICT_NONE || code == VERDICT_ACCEPT || code == VERDICT_REJECT;
}

/* A request of our version and our boot. False: its values are none. */
static bool obey(link_t *l, const uint8_t *m)
{
    switch (m[0]) {
    case MSG_CONFIG:
        if (!is_verdict(m[MSG_CONFIG_AT_DEFAULT])) {
            return false;
        }
        on_config(l, m);
        return true;
    case MSG_ARM:
        done(l, MSG_ARM, reject_arm(l->reject, m[MSG_ARM_AT_ON] != 0));
        return true;
    case MSG_VERDICT:
        if (!is_verdict(m[MSG_VERDICT_AT_VERDICT])) {
            return false;
        }
        on_verdict(l, m);
        return true;
    default:
        on_ack(l, get16(m + MSG_EV_ACK_AT_SEQ));
        return true;
    }
}

static void handle(link_t *l, const uint8_t *m, uint8_t length)
{
    if (m[0] == MSG_HELLO && length > MSG_HELLO_AT_VERSION + 1u && get16(m + MSG_HELLO_AT_VERSION) != PROTOCOL_VERSION) {
        answer_hello(l, 0); /* say who we are; nothing else of another release can be understood */
        return;
    }
    if (length != size_of(m[0])) {
        tally(&l->counts.not_ours);
        return;
    }
    if (m[0] == MSG_HELLO) {
        answer_hello(l, get16(m + MSG_HELLO_AT_NONCE));
        return;
    }
    const bool is_ours = get16(m + MSG_BEAT_AT_BOOT_ID) == reject_boot_id(l->reject);
    if (m[0] == MSG_BEAT) { /* answered to any host, so that a reset is noticed at the next beat */
        if (is_ours) {
            reject_beat(l->reject);
            reject_hold(l->reject, m[MSG_BEAT_AT_HOLD] != 0);
        }
        answer_beat(l, get16(m + MSG_BEAT_AT_NONCE));
    } else if (!is_ours || !obey(l, m)) {
        tally(&l->counts.not_ours);
    }
}

void link_on_byte(link_t *l, uint8_t byte, uint32_t now_us)
{
    const uint8_t length = frames_take(&l->deframer, byte);
    if (length) {
        reject_at(l->reject, now_us);
        handle(l, l->deframer.body, length);
    }
}

void link_on_time(link_t *l, uint32_t now_us)
{
    if (unacknowledged(l) && since32(now_us, l->sent_us) >= RESEND_US) {
        rewind_events(l);
    }
}

void link_init(link_t *l, reject_t *reject)
{
    *l = (link_t){.reject = reject, .next_seq = reject_oldest_event(reject), .sent_us = reject_now_us(reject)};
}
