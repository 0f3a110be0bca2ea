/* A PLC on libmodbus that follows REGISTERS.md: peer_plc server|client DEVICE UNIT BAUD PARITY PARTS
 *
 * As server the box polls it, as client it polls the box. Parts come each 40 ms once it is enabled, and are at the gate
 * 200 ms later. Prints one JSON object when all parts are settled, or after 20 s.
 */
#include <errno.h>
#include <modbus.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "registers.h"

#define EACH_MS 40
#define TRAVEL_MS 200
#define COUNTS_PER_MS 5
#define LIMIT_MS 20000
#define MOST_PARTS 500
#define REGISTERS 256

static uint16_t regs[REGISTERS];
static uint16_t *const box = regs + BOX_BASE, *const plc = regs + PLC_BASE;
static int verdicts[MOST_PARTS + 1], outcomes[MOST_PARTS + 1], writes[MOST_PARTS + 1];
static long born[MOST_PARTS + 1];
static int parts, minted, settled, has_result;
static long errors, polls, torn;
static long next_ms;

static long now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void set32(uint16_t *at, uint32_t value)
{
    at[0] = (uint16_t)(value >> 16);
    at[1] = (uint16_t)value;
}

static void trigger(long now)
{
    const uint32_t encoder = (uint32_t)(now * COUNTS_PER_MS);
    const uint16_t seq = (uint16_t)(plc[PLC_TRIGGER_SEQ] + 1);
    born[++minted] = now;
    set32(plc + PLC_PART_ID, (uint32_t)minted);
    set32(plc + PLC_ENCODER, encoder);
    plc[PLC_TRIGGERS + 2 * (seq % MAP_RING)] = (uint16_t)minted;
    plc[PLC_TRIGGERS + 2 * (seq % MAP_RING) + 1] = (uint16_t)encoder;
    plc[PLC_TRIGGER_SEQ] = seq;
}

static void settle(int part, long now)
{
    const uint16_t seq = (uint16_t)(plc[PLC_OUTCOME_SEQ] + 1);
    uint16_t *entry = plc + PLC_OUTCOMES + 3 * (seq % MAP_RING);
    outcomes[part] = verdicts[part] == VERDICT_CODE_ACCEPT   ? OUTCOME_PASSED
                     : verdicts[part] == VERDICT_CODE_REJECT ? OUTCOME_FIRED
                                                             : OUTCOME_DEFAULTED;
    entry[0] = (uint16_t)part;
    entry[1] = (uint16_t)outcomes[part];
    entry[2] = (uint16_t)(now * COUNTS_PER_MS);
    plc[PLC_OUTCOME_SEQ] = seq;
    settled = part;
}

static void scan(void)
{
    const long now = now_ms();
    plc[PLC_HEARTBEAT] = (uint16_t)(now / 50);
    set32(plc + PLC_ENCODER_NOW, (uint32_t)(now * COUNTS_PER_MS));
    if ((plc[PLC_CONTROL] & CONTROL_ENABLE) != 0 && minted < parts && now >= next_ms) {
        trigger(now);
        next_ms = now + EACH_MS;
    }
    if (settled < minted && now - born[settled + 1] >= TRAVEL_MS) {
        settle(settled + 1, now);
    }
}

static void take_box(void)
{
    if (box[BOX_MAP_ID] != MAP_ID || box[BOX_MAP_ID_END] != MAP_ID || box[BOX_MAP_VERSION] != MAP_VERSION) {
        torn++;
        return;
    }
    if ((box[BOX_STATUS] & BOX_STATUS_ARMED) == 0) {
        plc[PLC_CONTROL] = 0;
    } else if ((plc[PLC_CONTROL] & CONTROL_TRIPPED) == 0) {
        plc[PLC_CONTROL] = CONTROL_ENABLE | CONTROL_HEALTHY;
    }
    if (has_result && box[BOX_RESULT_SEQ] == plc[PLC_RESULT_ACK]) {
        return;
    }
    if (has_result && box[BOX_VERDICT] != VERDICT_CODE_NONE) {
        const long part = (long)box[BOX_PART_ID] << 16 | box[BOX_PART_ID + 1];
        plc[PLC_RESULT_ANSWER] = RESULT_UNKNOWN;
        if (part >= 1 && part <= minted) {
            writes[part]++;
            plc[PLC_RESULT_ANSWER] = part <= settled ? RESULT_LATE : verdicts[part] ? RESULT_DUP : RESULT_STORED;
            if (plc[PLC_RESULT_ANSWER] == RESULT_STORED) {
                verdicts[part] = box[BOX_VERDICT];
            }
        }
    }
    has_result = 1;
    plc[PLC_RESULT_ACK] = box[BOX_RESULT_SEQ];
}

static void serve(modbus_t *line)
{
    modbus_mapping_t map;
    uint8_t query[MODBUS_RTU_MAX_ADU_LENGTH];
    memset(&map, 0, sizeof map);
    map.nb_registers = map.nb_input_registers = REGISTERS;
    map.tab_registers = map.tab_input_registers = regs;
    modbus_set_indication_timeout(line, 0, 20000);
    const int length = modbus_receive(line, query);
    scan();
    if (length > 0) {
        polls++;
        if (modbus_reply(line, query, length, &map) < 0) {
            errors++;
        }
        take_box();
    } else if (length < 0 && errno != ETIMEDOUT) {
        errors++;
    }
}

static void poll_box(modbus_t *line)
{
    uint16_t inputs[BOX_SIZE];
    scan();
    polls++;
    if (modbus_write_registers(line, PLC_BASE, PLC_SIZE, plc) != (int)PLC_SIZE ||
        modbus_read_registers(line, BOX_BASE, BOX_SIZE, box) != (int)BOX_SIZE) {
        errors++;
        return;
    }
    take_box();
    if (polls % 16 == 0) { /* the same by the other function */
        errors += modbus_read_input_registers(line, BOX_BASE, BOX_SIZE, inputs) != (int)BOX_SIZE || inputs[0] != MAP_ID;
    }
    if (polls % 16 == 8) { /* an exception is an answer, not a fault of the line */
        errors += modbus_read_registers(line, 5000, 1, inputs) != -1 || errno != EMBXILADD;
        errors += modbus_write_register(line, BOX_BASE, 1) != -1 || errno != EMBXILADD;
    }
    usleep(2000);
}

static void print_numbers(const char *name, const int *numbers)
{
    printf(", \"%s\": [", name);
    for (int part = 1; part <= minted; part++) {
        printf("%s%d", part > 1 ? ", " : "", numbers[part]);
    }
    printf("]");
}

int main(int count, char **words)
{
    if (count != 7 || (parts = atoi(words[6])) > MOST_PARTS) {
        return 2;
    }
    const int is_server = strcmp(words[1], "server") == 0;
    modbus_t *line = modbus_new_rtu(words[2], atoi(words[4]), words[5][0], 8, 1);
    if (line == NULL || modbus_set_slave(line, atoi(words[3])) < 0 || modbus_connect(line) < 0) {
        fprintf(stderr, "%s\n", modbus_strerror(errno));
        return 1;
    }
    modbus_set_response_timeout(line, 1, 0);
    modbus_set_error_recovery(line, MODBUS_ERROR_RECOVERY_PROTOCOL); /* or garbage shifts every later frame */
    plc[PLC_MAP_ID] = plc[PLC_MAP_ID_END] = MAP_ID;
    plc[PLC_MAP_VERSION] = MAP_VERSION;
    plc[PLC_BOOT_ID] = (uint16_t)getpid();
    plc[PLC_CONTROL] = CONTROL_TRIPPED;
    const long begun = now_ms();
    long over = 0;
    while (now_ms() - begun < LIMIT_MS && (over == 0 || now_ms() < over)) {
        if (is_server) {
            serve(line);
        } else {
            poll_box(line);
        }
        if (over == 0 && settled == parts) {
            over = now_ms() + 300; /* the last outcomes must still be read */
        }
    }
    printf("{\"errors\": %ld, \"polls\": %ld, \"torn\": %ld", errors, polls, torn);
    print_numbers("verdicts", verdicts);
    print_numbers("outcomes", outcomes);
    print_numbers("writes", writes);
    printf("}\n");
    modbus_close(line);
    modbus_free(line);
    return 0;
}
