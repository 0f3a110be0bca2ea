/* The core with its Modbus map as a library for a simulator: a port that keeps bytes, gate edges and events for ctypes.
 *
 * Everything is called by one thread. What is not taken in time is counted in `lost`, never overwritten.
 */
#include <stdlib.h>
#include <string.h>

#include "modbus_rtu.h"
#include "port.h"

#define OUT_BYTES 250u /* as much as port_room can say */
#define NOTES 256u

typedef struct {
    uint32_t part_id;
    uint32_t encoder;
    uint16_t kind; /* EVENT_*; 0: an edge of the gate */
    uint16_t is_on;
} note_t;

typedef struct {
    reject_t reject; /* first, so that the port finds the rest */
    modbus_t modbus;
    uint16_t out_size, note_count, lost;
    uint8_t out[OUT_BYTES];
    note_t notes[NOTES];
} plc_t;

static plc_t *of(reject_t *r)
{
    return (plc_t *)(void *)r;
}

static void note(reject_t *r, uint16_t kind, bool is_on, uint32_t part_id, uint32_t encoder)
{
    plc_t *p = of(r);
    if (p->note_count == NOTES) {
        p->lost++;
        return;
    }
    note_t *n = &p->notes[p->note_count++];
    n->kind = kind;
    n->is_on = is_on;
    n->part_id = part_id;
    n->encoder = encoder;
}

void port_gate(reject_t *r, bool is_on, uint32_t part_id)
{
    note(r, 0, is_on, part_id, reject_encoder(r));
}

void port_feed(reject_t *r, bool may_feed)
{
    (void)r;
    (void)may_feed; /* the belt reads the box block itself */
}

void port_healthy(reject_t *r, bool is_on)
{
    (void)r;
    (void)is_on;
}

void port_save(reject_t *r, const reject_config_t *config)
{
    (void)r;
    (void)config;
}

void port_event(reject_t *r, const reject_event_t *event)
{
    note(r, event->kind, false, event->part_id, event->encoder);
}

uint8_t port_room(reject_t *r)
{
    return (uint8_t)(OUT_BYTES - of(r)->out_size);
}

void port_send(reject_t *r, const uint8_t *bytes, uint8_t length)
{
    plc_t *p = of(r);
    memcpy(p->out + p->out_size, bytes, length);
    p->out_size = (uint16_t)(p->out_size + length);
}

/* For ctypes */

plc_t *plc_new(uint16_t boot_id, uint32_t now_us, uint32_t encoder, uint8_t unit, uint32_t baud)
{
    plc_t *p = calloc(1, sizeof *p);
    if (p != NULL) {
        reject_init(&p->reject, boot_id, now_us, encoder, NULL);
        modbus_init(&p->modbus, &p->reject, unit, MODBUS_SILENCE_US(baud));
    }
    return p;
}

void plc_free(plc_t *p)
{
    free(p);
}

void plc_hear(plc_t *p, const uint8_t *bytes, uint32_t count, uint32_t now_us)
{
    while (count-- > 0u) {
        modbus_on_byte(&p->modbus, *bytes++, now_us);
    }
}

void plc_time(plc_t *p, uint32_t now_us)
{
    reject_on_time(&p->reject, now_us);
    modbus_poll(&p->modbus, now_us);
}

void plc_encoder(plc_t *p, uint32_t encoder, uint32_t now_us)
{
    reject_on_encoder(&p->reject, encoder, now_us);
}

void plc_eye(plc_t *p, uint32_t encoder, uint32_t now_us)
{
    reject_on_eye(&p->reject, encoder, now_us);
}

void plc_confirm(plc_t *p, uint32_t encoder, uint32_t now_us)
{
    reject_on_confirm(&p->reject, encoder, now_us);
}

void plc_inputs(plc_t *p, uint8_t faults, uint32_t now_us)
{
    reject_on_inputs(&p->reject, faults, now_us);
}

bool plc_next(plc_t *p, uint32_t *encoder)
{
    return reject_next_encoder(&p->reject, encoder);
}

/* The map without the wire, for a PLC that polls the box. */
uint8_t plc_read(plc_t *p, uint16_t address, uint16_t count, uint8_t *words)
{
    return modbus_map_read(&p->modbus.map, address, count, words);
}

uint8_t plc_write(plc_t *p, uint16_t address, uint16_t count, const uint8_t *words, uint32_t now_us)
{
    reject_at(&p->reject, now_us);
    return modbus_map_write(&p->modbus.map, address, count, words);
}

uint16_t plc_take_out(plc_t *p, uint8_t *bytes)
{
    const uint16_t count = p->out_size;
    memcpy(bytes, p->out, count);
    p->out_size = 0;
    return count;
}

uint16_t plc_take_notes(plc_t *p, note_t *notes)
{
    const uint16_t count = p->note_count;
    memcpy(notes, p->notes, count * sizeof notes[0]);
    p->note_count = 0;
    return count;
}

uint16_t plc_torn(const plc_t *p)
{
    return p->modbus.map.torn;
}

uint16_t plc_bad_crc(const plc_t *p)
{
    return p->modbus.bad_crc;
}
