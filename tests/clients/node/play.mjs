// What every client does: writes all the time, reads from replicas, and says at the end what became of its writes.

/** Rejects what takes longer than a second: a client that never answers has failed, too. */
function limited(promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error("no answer within a second")), 1000);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

export async function play(name, { write, read, keep, master, replica }) {
  let ended = false;
  process.stdin.on("end", () => (ended = true)).resume();
  const acked = [];
  let [errors, reads, gap, ready, last] = [0, 0, 0, false, performance.now()];
  for (let number = 1; !ended; number++) {
    try {
      await limited(write(`${name}:${number}`, `${number}`));
      const now = performance.now();
      if (acked.length > 0) gap = Math.max(gap, now - last);
      last = now;
      acked.push(number);
    } catch (error) {
      errors += 1;
      if (errors <= 3) console.error(`write: ${error}`);
    }
    if (number % 10 === 0 && acked.length > 0) {
      try {
        if ((await limited(read(`${name}:${acked[0]}`))) === `${acked[0]}`) reads += 1;
      } catch (error) {
        if (reads === 0) console.error(`read: ${error}`);
      }
    }
    if (!ready && reads > 0) {
      ready = true;
      console.log(`ready ${await master()}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  const kept = acked.length > 0 ? await keep(acked.map((number) => `${name}:${number}`)) : [];
  const lost = acked.filter((number, place) => kept[place] !== `${number}`).length;
  console.log(
    `acked=${acked.length} errors=${errors} lost=${lost} gap_ms=${Math.round(gap)} reads=${reads} ` +
      `master=${await master()} replicas=${await replica()}`,
  );
  process.exit(0);
}
