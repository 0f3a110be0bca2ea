/* The register map (registers.h, REGISTERS.md) on top of the reject controller: registers in, calls of reject.h out.
 *
 * The controller is the far side: it serves the PLC block, takes the box block and the setup block. Triggers and
 * outcomes are read backwards from the event log, which is never acknowledged here, so nothing is kept twice.
 */
#ifndef MODBUS_MAP_H
#define MODBUS_MAP_H

#include <stdbool.h>
#include <stdint.h>

#include "registers.h"
#include "reject.h"

#define MODBUS_ILLEGAL_FUNCTION 1u
#define MODBUS_ILLEGAL_ADDRESS 2u
#define MODBUS_ILLEGAL_VALUE 3u
#define MODBUS_BUSY 6u

typedef struct {
    reject_t *reject;
    uint32_t beat_us;
    uint16_t box[BOX_SIZE]; /* as written, so that it may also come register by register */
    uint16_t heartbeat;
    uint16_t result_ack;
    uint16_t torn; /* box blocks dropped; stops at 65535 */
    uint8_t result_answer;
    bool has_result; /* the first sequence seen after a start is done with */
    bool is_enabled; /* armed through this map */
    bool is_tripped; /* until the box takes ARMED back */
} modbus_map_t;

void modbus_map_init(modbus_map_t *m, reject_t *reject);
void modbus_map_poll(modbus_map_t *m, uint32_t now_us); /* the heartbeat; trips are noticed here */

/* Both return 0 or an exception code. `words` holds registers as on the wire, high byte first. */
uint8_t modbus_map_read(modbus_map_t *m, uint16_t address, uint16_t count, uint8_t *words);
uint8_t modbus_map_write(modbus_map_t *m, uint16_t address, uint16_t count, const uint8_t *words);

#define MODBUS_MAX_WORDS PLC_SIZE /* the longest block */

#endif
