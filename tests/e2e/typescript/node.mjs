// Runs a scenario: node node.mjs <bundle> <name> <world as JSON>. Prints the facts that it returns as JSON.
const [, , bundle, name, world] = process.argv;
const scenarios = await import(bundle);
console.log(JSON.stringify(await scenarios[name](JSON.parse(world))));
