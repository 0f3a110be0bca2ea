/* The port for the host library: what the controller does is kept in buffers, which the caller reads and empties after
 * every call (firmware_bridge/reject/core.py). One `host_t` is one controller; the caller owns its memory. */
#include <string.h>

#include "link.h"
#include "modbus_rtu.h"
#include "port.h"

#define HOST_BYTES 4096u
#define HOST_EDGES 256u
#define HOST_EVENTS 512u /* one call makes at most a few per part */

/* What is shared with core.py has 32-bit fields only, so that its layout is the same everywhere. */
typedef struct { /* Edge in core.py */
    uint32_t is_on, part_id, encoder, time_us;
} host_edge_t;

typedef struct { /* Event */
    uint32_t seq, kind, part_id, encoder, time_us;
} host_event_t;

typedef struct { /* News: read after every call; the caller sets the counts back to 0 */
    uint32_t byte_count, edge_count, event_count;
    uint32_t lost; /* what found no room in the buffers: a mistake of the caller */
    uint32_t flags, is_healthy, next_part, next_encoder, has_next_encoder, is_held;
} host_news_t;

typedef struct { /* Values: a configuration */
    uint32_t decide_counts, fire_counts, pulse_counts, confirm_counts, watchdog_ms, max_on_ms;
    uint32_t default_verdict, debounce_counts, inputs;
} host_config_t;

typedef struct { /* Start */
    uint32_t boot_id, now_us, encoder, next_part, next_event;
    uint32_t modbus_unit, baud; /* unit 0: the protocol of link.h */
    uint32_t has_saved;
    host_config_t saved;
} host_start_t;

typedef struct { /* About: what the Python side checks when it loads the library */
    uint32_t protocol_version, part_slots, event_slots, event_window, host_size;
} host_about_t;

typedef struct { /* Tallies */
    uint32_t overwritten, overflows, trips, bounces;
    uint32_t not_ours, resends, dropped;
    uint32_t frames, bad_crc, malformed, oversize;
} host_tallies_t;

typedef struct {
    reject_t reject; /* first: a port is given its address */
    link_t link;
    modbus_t modbus;
    host_news_t news;
    uint8_t bytes[HOST_BYTES];
    host_edge_t edges[HOST_EDGES];
    host_event_t events[HOST_EVENTS];
    reject_config_t saved; /* as an EEPROM would keep it */
    uint32_t saves;
} host_t;

static host_t *host_of(reject_t *r)
{
    return (host_t *)(void *)r;
}

/* The port */

void port_gate(reject_t *r, bool is_on, uint32_t part_id)
{
    host_t *h = host_of(r);
    if (h->news.edge_count == HOST_EDGES) {
        h->news.lost++;
        return;
    }
    h->edges[h->news.edge_count++] = (host_edge_t){is_on, part_id, r->encoder, r->now_us};
}

void port_healthy(reject_t *r, bool is_on)
{
    host_of(r)->news.is_healthy = is_on;
}

void port_feed(reject_t *r, bool may_feed)
{
    host_of(r)->news.is_held = !may_feed;
}

void port_save(reject_t *r, const reject_config_t *config)
{
    host_of(r)->saved = *config;
    host_of(r)->saves++;
}

void port_event(reject_t *r, const reject_event_t *event)
{
    host_t *h = host_of(r);
    if (h->news.event_count == HOST_EVENTS) {
        h->news.lost++;
        return;
    }
    h->events[h->news.event_count++] =
        (host_event_t){event->seq, event->kind, event->part_id, event->encoder, event->time_us};
}

uint8_t port_room(reject_t *r)
{
    const uint32_t room = HOST_BYTES - host_of(r)->news.byte_count;
    return room > UINT8_MAX ? UINT8_MAX : (uint8_t)room;
}

void port_send(reject_t *r, const uint8_t *bytes, uint8_t length)
{
    host_t *h = host_of(r);
    memcpy(h->bytes + h->news.byte_count, bytes, length);
    h->news.byte_count += length;
}

/* For core.py */

static void finish(host_t *h, uint32_t now_us)
{
    if (h->modbus.unit) {
        modbus_poll(&h->modbus, now_us);
    } else {
        link_poll(&h->link);
    }
    h->news.flags = reject_flags(&h->reject);
    h->news.next_part = reject_next_part(&h->reject);
    h->news.has_next_encoder = reject_next_encoder(&h->reject, &h->news.next_encoder);
}

void host_about(host_about_t *about);
void host_about(host_about_t *about)
{
    *about = (host_about_t){PROTOCOL_VERSION, PART_SLOTS, EVENT_SLOTS, EVENT_WINDOW, (uint32_t)sizeof(host_t)};
}

/* Where the caller reads: news, bytes, edges, events. */
void host_places(host_t *h, void **places);
void host_places(host_t *h, void **places)
{
    places[0] = &h->news;
    places[1] = h->bytes;
    places[2] = h->edges;
    places[3] = h->events;
}

void host_init(host_t *h, const host_start_t *start);
void host_init(host_t *h, const host_start_t *start)
{
    memset(h, 0xA5, sizeof *h); /* RAM holds anything at power-on */
    memset(&h->news, 0, sizeof h->news);
    h->modbus.unit = 0;
    h->saves = 0;
    const host_config_t *c = &start->saved;
    const reject_config_t saved = {
        .decide_counts = (uint16_t)c->decide_counts,
        .fire_counts = (uint16_t)c->fire_counts,
        .pulse_counts = (uint16_t)c->pulse_counts,
        .confirm_counts = (uint16_t)c->confirm_counts,
        .watchdog_ms = (uint16_t)c->watchdog_ms,
        .max_on_ms = (uint16_t)c->max_on_ms,
        .default_verdict = (uint8_t)c->default_verdict,
        .debounce_counts = (uint16_t)c->debounce_counts,
        .inputs = (uint8_t)c->inputs,
    };
    reject_init(&h->reject, (uint16_t)start->boot_id, start->now_us, start->encoder, start->has_saved ? &saved : NULL);
    if (start->next_part) { /* tests begin near the wrap */
        h->reject.next_part = start->next_part;
    }
    h->reject.next_event = (uint16_t)start->next_event;
    link_init(&h->link, &h->reject);
    if (start->modbus_unit) {
        modbus_init(&h->modbus, &h->reject, (uint8_t)start->modbus_unit,
                    MODBUS_SILENCE_US(start->baud));
    }
    finish(h, start->now_us);
}

void host_on_bytes(host_t *h, const uint8_t *bytes, uint32_t count, uint32_t now_us);
void host_on_bytes(host_t *h, const uint8_t *bytes, uint32_t count, uint32_t now_us)
{
    for (uint32_t at = 0; at < count; at++) {
        if (h->modbus.unit) {
            modbus_on_byte(&h->modbus, bytes[at], now_us);
        } else {
            link_on_byte(&h->link, bytes[at], now_us);
        }
    }
    finish(h, now_us);
}

void host_on_eye(host_t *h, uint32_t encoder, uint32_t now_us);
void host_on_eye(host_t *h, uint32_t encoder, uint32_t now_us)
{
    reject_on_eye(&h->reject, encoder, now_us);
    finish(h, now_us);
}

void host_on_encoder(host_t *h, uint32_t encoder, uint32_t now_us);
void host_on_encoder(host_t *h, uint32_t encoder, uint32_t now_us)
{
    reject_on_encoder(&h->reject, encoder, now_us);
    finish(h, now_us);
}

void host_on_confirm(host_t *h, uint32_t encoder, uint32_t now_us);
void host_on_confirm(host_t *h, uint32_t encoder, uint32_t now_us)
{
    reject_on_confirm(&h->reject, encoder, now_us);
    finish(h, now_us);
}

void host_on_inputs(host_t *h, uint32_t faults, uint32_t now_us);
void host_on_inputs(host_t *h, uint32_t faults, uint32_t now_us)
{
    reject_on_inputs(&h->reject, (uint8_t)faults, now_us);
    finish(h, now_us);
}

void host_on_time(host_t *h, uint32_t now_us);
void host_on_time(host_t *h, uint32_t now_us)
{
    reject_on_time(&h->reject, now_us);
    link_on_time(&h->link, now_us);
    finish(h, now_us);
}

/* The configuration in force; 0 before the first one. */
uint32_t host_config(const host_t *h, host_config_t *values);
uint32_t host_config(const host_t *h, host_config_t *values)
{
    reject_config_t c;
    const bool is_configured = reject_config(&h->reject, &c);
    *values = (host_config_t){c.decide_counts, c.fire_counts,     c.pulse_counts,    c.confirm_counts, c.watchdog_ms,
                              c.max_on_ms,     c.default_verdict, c.debounce_counts, c.inputs};
    return is_configured;
}

void host_tallies(const host_t *h, host_tallies_t *tallies);
void host_tallies(const host_t *h, host_tallies_t *tallies)
{
    const reject_counts_t *r = &h->reject.counts;
    const link_counts_t *l = &h->link.counts;
    const frames_counts_t *f = &h->link.deframer.counts;
    *tallies = (host_tallies_t){r->overwritten, r->overflows, r->trips,   r->bounces,   l->not_ours, l->resends,
                                l->dropped,     f->frames,    f->bad_crc, f->malformed, f->oversize};
}

/* The registers without the wire, for a PLC that polls the box: big-endian words, an exception code or 0. */
uint32_t host_map_read(host_t *h, uint32_t address, uint32_t count, uint8_t *words);
uint32_t host_map_read(host_t *h, uint32_t address, uint32_t count, uint8_t *words)
{
    return modbus_map_read(&h->modbus.map, (uint16_t)address, (uint16_t)count, words);
}

uint32_t host_map_write(host_t *h, uint32_t address, uint32_t count, const uint8_t *words, uint32_t now_us);
uint32_t host_map_write(host_t *h, uint32_t address, uint32_t count, const uint8_t *words, uint32_t now_us)
{
    reject_at(&h->reject, now_us);
    const uint8_t code = modbus_map_write(&h->modbus.map, (uint16_t)address, (uint16_t)count, words);
    finish(h, now_us);
    return code;
}

/* For tests of what no message tells: bad_crc and torn of the Modbus server, how often a configuration was kept and the
 * fire_counts of the last one. */
void host_hidden(const host_t *h, uint32_t *told);
void host_hidden(const host_t *h, uint32_t *told)
{
    told[0] = h->modbus.bad_crc;
    told[1] = h->modbus.map.torn;
    told[2] = h->saves;
    told[3] = h->saved.fire_counts;
}

/* The plan for an interrupt, for tests of it: has_on, on_at, has_off, off_at. */
void host_plan(host_t *h, uint32_t *plan);
void host_plan(host_t *h, uint32_t *plan)
{
    reject_plan_t p;
    reject_plan(&h->reject, &p);
    plan[0] = p.has_on;
    plan[1] = p.on_at;
    plan[2] = p.has_off;
    plan[3] = p.off_at;
}
