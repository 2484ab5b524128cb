// Runs the scenarios of a program and prints what each of them saw, as one JSON object.

export const PIXEL = `data:image/png;base64,${Buffer.from("\x89PNG\r\n\x1a\n", "latin1").toString("base64")}`;

export async function tell(scenarios) {
  const told = {};
  for (const [name, scenario] of Object.entries(scenarios)) {
    try {
      told[name] = await scenario();
    } catch (error) {
      const status = error.status ?? error.statusCode ?? null;
      told[name] = { error: error.constructor.name, status, message: String(error.message) };
    }
  }
  process.stdout.write(JSON.stringify(told));
}
